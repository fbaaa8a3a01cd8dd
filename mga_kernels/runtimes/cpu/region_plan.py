"""Two whole networks of which one refines regions (``networks.regions``), both in convolutions of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...alone.rooms import LISTED_SMALL
from ...modes import ordinary
from ...networks import RegionConfig, SRNetwork
from ..plan import CELLS, Plan, Planner
from . import large_tiles
from .choose import against, weights_of
from .filled import LARGE
from .maps import MapChain, Maps
from .plan import PairWeights
from .regions import Regions, Surroundings
from .storage import Storage

AVERAGED = 64  # rows of two pictures at a time, which stay in the cache of a CPU

Run = Callable[[Surroundings], None]


class RegionWeights(Planner):
    """``of``: why a network has no such plan in float maps, or its plans. ``kind``: what makes its storage's lists."""

    faster = "float32"  # the only one

    def __init__(
        self,
        network: SRNetwork,
        base: PairWeights,
        refine: PairWeights,
        kind: Callable[[int, int, Run], Surroundings] = Regions,
    ):
        self.network, self.config, self.kind = network, network.config, kind
        self.base, self.refine = base, refine
        self.pixel = base.pixel

    @classmethod
    def of(
        cls, network: SRNetwork, kept: Storage, pixel: torch.dtype = torch.uint8, exact: bool = False
    ) -> RegionWeights | str:
        """``exact``: as of ``large_tiles.of``."""
        reason = cls.refused(network, kept)
        if reason is not None:
            return reason
        assert network.pair is not None
        base, refine = network.pair
        small, large = (_weights(part, network.config.patch_size, pixel, exact) for part in (base, refine))
        if isinstance(small, str):
            return small
        if isinstance(large, str):
            return large
        for chain in large.chains:
            assert isinstance(chain, MapChain)
            chain.rows.small = LISTED_SMALL
        return cls(network, small, large)

    @classmethod
    def refused(cls, network: SRNetwork, kept: Storage) -> str | None:
        """Why there is no such plan of a network in a storage, or None; nothing is made."""
        assert network.pair is not None
        if kept.narrow:
            return f"there are none in {kept.name} for regions, only in float32"
        base, refine = network.pair
        return against(base, kept) or cls.against(refine, kept)

    @classmethod
    def against(cls, refine: SRNetwork, kept: Storage | None = None) -> str | None:
        """Why a whole network cannot refine regions in a storage, by default in float maps, or None."""
        found = weights_of(refine, kept or Maps())
        if isinstance(found, str) or found[0].only_chains:
            return found if isinstance(found, str) else None
        return f"{refine.config.network} has steps between its convolutions that need the whole image"

    @property
    def description(self) -> str:
        return f"{self.refine.description}, in regions"

    def plan(self, height: int, width: int, capacity: int) -> RegionPlan:
        return RegionPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        # The picture, which both count, is one, unless there is a mean of two.
        picture = 3 * height * width * self.network.config.scale**2 * self.pixel.itemsize
        own = 0 if self.network.averages else picture
        return sum(weights.bytes_needed(height, width, 0) for weights in (self.base, self.refine)) - own


def _weights(network: SRNetwork, cell: int, pixel: torch.dtype, exact: bool) -> PairWeights | str:
    """Of a whole network in float maps as when it runs alone, or why there are none; in large tiles only where cells
    are whole ones."""
    if pixel == torch.uint8 and cell % LARGE == 0:
        return large_tiles.of(network, Maps(), exact)
    found = weights_of(network, Maps())
    return found if isinstance(found, str) else found[0](found[1], Maps(), pixel=pixel)


class RegionPlan(Plan):
    """The image is all that is kept from one step to the next, and what both networks are given of it is one map where
    they take it in the same form."""

    config: RegionConfig

    def __init__(self, weights: RegionWeights, height: int, width: int, capacity: int):
        super().__init__(weights.network.config, height, width, capacity)
        self.weights, self.pixel = weights, weights.pixel
        self.base, self.whole = (part.plan(height, width, 0) for part in (weights.base, weights.refine))
        self._one_image = weights.base.unshuffled == weights.refine.unshuffled and self.base.seen == self.whole.seen
        if self._one_image:
            self.whole.tensors = [tensor for tensor in self.whole.tensors if tensor is not self.whole.image.data]
            self.whole.image = self.base.image
        self.image, self._given = torch.empty(0), False
        self._picture = torch.empty(0, 0, 3, dtype=torch.uint8)
        self._regions: Surroundings | None = None
        self._before: Tensor | None = None

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.image, self._given = image, self._one_image and out is not None
        if out is not None:
            self.base.coarse(image, out)

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.by_detail(k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        if not indices.numel():
            return
        self._picture = out
        regions = self.regions
        regions.choose(self.grid_of(indices), *self.whole.area.size)
        if not self._given:
            self.whole.give(self.image)
        with self._averaging(out):
            self._run(regions)

    def in_parts(self) -> str:
        return CELLS.format(self.config.network)

    @property
    def regions(self) -> Surroundings:
        """Made at the first refinement, and not where that is captured."""
        if self._regions is None:
            self._regions = self._surroundings()
        return self._regions

    @ordinary()
    def _surroundings(self) -> Surroundings:
        side, config = self.weights.refine.unshuffled, self.config
        return self.weights.kind(config.patch_size // side, config.halo // side, self._run)

    def forget(self) -> None:
        """Let go of the image and the picture, and of what was made for them."""
        self.image, self._picture = torch.empty(0), torch.empty(0, 0, 3, dtype=torch.uint8)
        if self._regions is not None:
            self._regions.forget()

    def _run(self, regions: Surroundings) -> None:
        self.whole.area.regions = regions
        try:
            self.whole.run_base(self.image, self._picture)
        finally:
            self.whole.area.regions = None

    def decomposed(self, out: Tensor) -> None:
        if self.config.mean:
            self.base.coarse(self.image, out)
        with self._averaging(out):
            self.whole.coarse(self.image, out)

    @contextmanager
    def _averaging(self, out: Tensor) -> Iterator[None]:
        """What is written to the picture ``out`` meanwhile becomes the mean of that and of what was there."""
        if not self.config.mean:
            yield
            return
        if self._before is None or self._before.shape != out.shape:
            with ordinary():
                self._before = torch.empty_like(out)
        self._before.copy_(out)
        yield
        rows = AVERAGED if out.device.type == "cpu" else len(out)  # on a GPU every step of it is a launch
        for made, before in zip(out.split(rows), self._before.split(rows), strict=True):
            average_(made, before)


def average_(made: Tensor, other: Tensor) -> None:
    """Mean of two pictures, in the first of them; of bytes halves go to the even one, so that none is brighter."""
    if made.is_floating_point():
        made.add_(other).mul_(0.5)
        return
    differing = made ^ other
    half = made.bitwise_and_(other).add_(differing >> 1)
    half.add_(differing.bitwise_and_(half).bitwise_and_(1))
