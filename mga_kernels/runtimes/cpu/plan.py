"""What the plans of all networks with convolutions of our own share, from bytes to bytes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...modes import ordinary
from ...networks.interface import Halves
from ...networks.layers import pad_by_reflection
from ...networks.mask import MaskPrediction
from ...ops import filter_and_select
from ..plan import CELLS, Parts, PatchPlan, Planner
from .changes import Changes
from .choose import described
from .layers import Conv, closing_pair, less_mean, weight_and_bias
from .pairs import Grid
from .stages import Stage
from .storage import Chain, Spare, Storage, Stored

ACROSS = 32  # patches in a row of the grid
MARGIN = 1  # of images in a grid: with that between patches, no kernel of 5x5 sees a neighbour

Buffers = Mapping[str, Stored]
PlaneSizes = Mapping[str, int | tuple[int, int]]
Base = TypeVar("Base", bound=nn.Module)
Refine = TypeVar("Refine", bound=nn.Module)
MakeChain = Callable[..., Chain]  # as ``PairWeights.chain``


class PairWeights(Planner, Generic[Base, Refine]):
    """A network's weights as its plans of all sizes use them.

    A network's own class makes chains of its halves, says which planes they work in, ``base_planes`` and
    ``refine_planes``: channels by name, or channels and the factor by which they are larger than the image; and how the
    halves run in them. Of a whole network only the Base-Net is there. ``unshuffled``: side of the blocks of pixels
    that become channels before anything else; "image" then has those, and every plane's rows and columns are so many
    times fewer.
    """

    takes_place = True
    faster = "bfloat16"  # in which storage, where the kernels of both are fast: `bench/storages.py` measures it
    only_chains = False  # whether ``base`` does nothing but call chains, so that it can run in regions
    adds_image = False  # whether ``base`` adds the image as it was given, bilinearly enlarged
    short_chains = False  # whether each has a few layers only, whose weights can then be transformed when it runs
    any_settings = False  # whether it can run a whole network as it is, not only with the paper's widths and range
    unshuffled = 1
    base_planes: PlaneSizes = MappingProxyType({})
    refine_planes: PlaneSizes = MappingProxyType({})

    def __init__(
        self, halves: Halves, kept: Storage, refining: Storage | None = None, pixel: torch.dtype = torch.uint8
    ):
        """``refining``: in which the Refine-Net's chains are made, where that is not ``kept``; of the same planes."""
        self.storage, self._making, self.pixel = kept, kept, pixel
        self.config, self.halo = halves.config, halves.halo
        self.channels = self.config.feature_channels
        self.value_range = halves.value_range
        self.gain = 1 / self.value_range
        self.chains: list[Chain] = []  # all, those of the Refine-Net behind ``of_image`` others
        self.prepare_base(cast(Base, halves.base))
        self.mask = None if halves.mask is None else _MaskBranch(halves.mask, self.config.selection, self.chain)
        self.of_image = len(self.chains)
        if halves.refine is not None:
            self._making = refining or kept
            self.prepare_refine(cast(Refine, halves.refine))

    @property
    def description(self) -> str:
        return described(self.storage)

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        """Why these halves, of a network with this class, cannot run in such a storage."""
        return None

    @property
    def shallow(self) -> PlaneSizes:
        """A plane for what the first convolution makes, where the feature is not written over it as its long skip."""
        return {} if self.storage.in_place else {"shallow": self.channels}

    def chain(self, stages: Sequence[Stage], external: Sequence[str], spare: Sequence[str] = ()) -> Chain:
        """Every chain of this network is made here."""
        self.chains.append(self._making.chain(stages, external, spare))
        return self.chains[-1]

    def closing_pair(self, conv1: nn.Conv2d, conv2: nn.Conv2d) -> tuple[Conv, Conv]:
        return closing_pair(conv1, conv2, self.storage.narrow)

    def less_mean(
        self, conv: nn.Conv2d, mean: Sequence[float], slope: float | Tensor = 1.0, factor: float = 1.0
    ) -> Conv:
        return less_mean(conv, mean, slope, self.storage.narrow, factor)

    @abstractmethod
    def prepare_base(self, base: Base) -> None:
        """Make the chains of the Base-Net, a float32 module on the CPU, and set ``base_planes``."""

    def prepare_refine(self, refine: Refine) -> None:
        """The same for the Refine-Net, after ``prepare_base``; InputError where the class has none."""
        raise InputError(f"{self.config.network} has no Refine-Net in convolutions of our own")

    @abstractmethod
    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        """``image``: channels 0..255 and behind them ones -> coarse feature, and pictures (1, sH, sW, 3) where given.

        ``rgb``: the same image as it was given, (H, W, 3) of type ``pixel``.
        """

    def refine(self, area: Grid, x: Stored, pictures: Tensor, buffers: Buffers) -> None:
        """Feature patches with their halo, in ``area`` -> pictures (n, sp, sp, 3) of type ``pixel``."""
        raise InputError(f"{self.config.network} has no Refine-Net in convolutions of our own")

    def plan(self, height: int, width: int, capacity: int) -> PairPlan:
        return PairPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        with torch.device("meta"):
            plan = self.plan(height, width, capacity)
            picture = plan.buffer()
            if dense:
                plan.whole_feature()
        return sum(tensor.nbytes for tensor in [*plan.tensors, picture]) + self.room_bytes(plan, dense)

    def room_bytes(self, plan: PairPlan, dense: bool = False) -> int:
        """Memory that chains take beside what they are given."""
        size, grid = plan.feature_size, plan.grid
        if self.storage.narrow:
            return self.storage.room_bytes(self.chains, *size)
        refined = size if dense else (grid.height, grid.width)
        of_image, of_patches = self.chains[: self.of_image], self.chains[self.of_image :]
        for_image = self.storage.room_bytes(of_image, *size, planes=plan.base_buffers)
        return for_image + self.storage.room_bytes(of_patches, *refined, images=dense, side=grid.side)


class GridWeights(PairWeights[Base, Refine]):
    """A network whose Base-Net also runs over many small images at once, side by side in a grid (``class_plan``)."""

    @abstractmethod
    def of_grid(self, margin: int = MARGIN) -> Chain:
        """A new chain from "image" to "picture". Each image has a border of so many pixels of zeros."""


class PlainWeights(PairWeights[Base, nn.Module]):
    """A network that exists whole only: a chain from "image" to "picture", of the ``stages`` that its class lists.

    Where there is an ``end``, they lead to "feature", and the end from there to "picture", in a chain of its own.
    """

    any_settings = only_chains = True
    faster = "float32"  # the only one

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        name = halves.config.network
        return f"there are none in {kept.name} for {name} yet, only in float32" if kept.narrow else None

    @abstractmethod
    def stages(self, base: Base) -> list[Stage]: ...

    def end(self, base: Base) -> list[Stage]:
        """What is computed at the size of the result, which takes the most memory."""
        return []

    def prepare_base(self, base: Base) -> None:
        stages, end = self.stages(base), self.end(base)
        self.trunk = self.chain(stages, ["image", "feature" if end else "picture"])
        self.last = self.chain(end, ["feature", "picture"]) if end else None
        if end:
            self.base_planes = {"feature": self.trunk.channels_of("feature")}

    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        assert picture is not None
        given: dict[str, Stored | Tensor] = {**buffers, "image": image, "picture": picture}
        self.trunk(area, given, gain=self.gain)
        if self.last is not None:
            self.last(area, given, gain=self.gain)


class PairPlan(PatchPlan):
    """Memory is allocated here, once; the methods allocate only what is small.

    ``repeated``: channels of the feature from here on go on beyond the image as its border is; -1 for none.
    """

    repeated = -1

    def __init__(self, weights: PairWeights, height: int, width: int, capacity: int):
        super().__init__(weights.config, height, width, capacity)
        self.weights, self.pixel = weights, weights.pixel
        self.tensors: list[Tensor] = []  # all that is allocated here
        self.memory = torch.empty(0).device  # the caller's choice, which holds for what is allocated later, too
        self._lent: list[Tensor] = []  # of the Refine-Net's planes, those in memory of the Base-Net's
        self._last_half = "base"  # that worked in it
        smallest, p, s, halo = weights.config.definition.minimum_size, self.patch_size, self.scale, weights.halo
        side = weights.unshuffled
        self.seen = max(height, smallest), max(width, smallest)  # what the network is given
        seen = math.ceil(self.seen[0] / side), math.ceil(self.seen[1] / side)
        self.feature_size = self.padded if side == 1 else seen
        self.area = Grid(1, seen)
        self.area_of_cells = Grid(1, self.feature_size, rooms=self.area.rooms if self.feature_size == seen else None)
        self.image = self._planes(3 * side**2 + 1, *seen)
        self.image.write(torch.ones(3 * side**2 + 1, *seen, dtype=torch.float32))
        self.feature = self._planes(weights.channels, *self.feature_size)
        self.base_buffers = self._buffers(weights.base_planes, *seen)
        self.scores = self._keep(torch.empty(1, *self.padded, dtype=torch.float32))
        self.grid = Grid(max(capacity, 1), (p + 2 * halo, p + 2 * halo), ACROSS)
        self.taken, self.count = self._planes(weights.channels, self.grid.height, self.grid.width), 0
        spare = Spare(self.base_buffers.values()) if weights.storage.in_place else None
        self.refine_buffers = self._buffers(weights.refine_planes, self.grid.height, self.grid.width, spare)
        self.pictures = self._keep(torch.empty(max(capacity, 1), s * p, s * p, 3, dtype=self.pixel))
        self._areas: dict[int, Grid] = {}
        self._whole_feature: tuple[Stored, Buffers] | None = None
        self._whole_area: Grid | None = None
        self._parts: Parts | str | None = None

    @property
    def patch_size(self) -> int:
        return self.config.patch_size

    @property
    def scale(self) -> int:
        return self.config.scale

    def _keep(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor

    def _planes(self, channels: int, height: int, width: int, spare: Spare | None = None) -> Stored:
        left = None if spare is None else spare.room()
        with self.memory:
            planes = self.weights.storage.planes(channels, height, width, spare)
        if spare is None or spare.room() == left:
            self._keep(planes.data)
        else:
            self._lent.append(planes.data)
        return planes

    def _hand_over(self, half: str) -> None:
        """Zeros in memory that the other half has written to: both rely on them, around images and between patches."""
        if half != self._last_half:
            self._last_half = half
            for tensor in self._lent:
                tensor.zero_()

    def _buffers(self, wanted: PlaneSizes, height: int, width: int, spare: Spare | None = None) -> Buffers:
        sizes = {name: (size, 1) if isinstance(size, int) else size for name, size in wanted.items()}
        return {name: self._planes(n, height * scale, width * scale, spare) for name, (n, scale) in sizes.items()}

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.give(image)
        seen = self.area.size
        self.area.place = self.place
        self.feature.inner()[:, :, seen[1] :].zero_()  # what the last image left there; layers read it as a border
        self.run_base(image, out)
        self.feature.extend(*seen)

    def run_base(self, image: Tensor, out: Tensor | None) -> None:
        """The Base-Net over ``area`` or its regions, of an image that was given."""
        self._hand_over("base")
        height, width = (self.scale * side for side in self.seen)
        picture = None if out is None else out[None, :height, :width]
        self.weights.base(self.area, self.image, self.feature, picture, image, self.base_buffers)

    def give(self, image: Tensor) -> None:
        """The pixels of an image (H, W, 3), or blocks of them, with their reflection beyond it."""
        side = self.weights.unshuffled
        image = image if image.dtype == torch.uint8 else 255 * image
        if side == 1:
            self.image.write_colours(image)
            self.image.extend(*image.shape[:2])
            return
        height, width = (side * length for length in self.area.size)
        blocks = F.pixel_unshuffle(pad_by_reflection(image.permute(2, 0, 1)[None], height, width), side)[0]
        self.image.write(F.pad(blocks, (0, 0, 0, 0, 0, 1), value=1))

    def in_parts(self) -> Parts | str:
        """Made at the first question."""
        if self._parts is None:
            self._parts = self._in_parts()
        return self._parts

    @ordinary()
    def _in_parts(self) -> Parts | str:
        weights = self.weights
        if weights.mask is not None:
            return CELLS.format(self.config.network)
        if weights.storage.narrow:
            return super().in_parts()
        if not weights.only_chains:
            return f"{self.config.network} has steps between its convolutions that need the whole frame"
        if self.seen != (self.height, self.width):
            return f"{self.config.network} takes no frame as small as {self.width}x{self.height}"
        try:
            return Changes(self)
        except InputError as problem:
            return f"of {self.config.network}, {problem}"

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        assert self.weights.mask is not None
        return self.weights.mask(self.area_of_cells, self.feature, self.scores, k)

    def gather(self, indices: Tensor) -> None:
        self.count = indices.shape[1]
        if not self.count:
            return
        area, halo = self._area(self.count), self.weights.halo
        self.weights.storage.gather(area, self.taken, self.feature, self.cells, indices, halo, self.repeated)

    def patches(self) -> Tensor:
        cells = self.grid.patches(self.taken, 0, self.taken.groups)
        return cells.flatten(2, 3).flatten(0, 1)[: self.count, : self.weights.channels].clone()

    def load(self, patches: Tensor) -> None:
        self.count = len(patches)
        self._area(self.count).load(self.taken, patches)

    def refined(self) -> Tensor:
        pictures = self.pictures[: self.count]
        if self.count:
            self._hand_over("refine")
            self.weights.refine(self._area(self.count), self.taken, pictures, self.refine_buffers)
        return pictures.permute(0, 3, 1, 2)

    def _area(self, count: int) -> Grid:
        """The grid of the first ``count`` patches. Its masks are kept, because they cost more than a few patches."""
        if count not in self._areas:
            self._areas = {count: Grid(count, self.grid.size, ACROSS, self.grid.rooms)}
        return self._areas[count]

    def decomposed(self, out: Tensor) -> None:
        halo, (planes, buffers) = self.weights.halo, self.whole_feature()
        height, width = planes.height, planes.width
        planes.inner()[:, halo : height - halo, halo : width - halo].copy_(self.feature.inner())
        self.weights.refine(self.whole_area(height, width), planes, out[None], buffers)

    def whole_area(self, height: int, width: int) -> Grid:
        """What the Refine-Net runs over in ``decomposed``."""
        if self._whole_area is None:
            self._whole_area = Grid(1, (height, width))
        return self._whole_area

    @ordinary()
    def whole_feature(self) -> tuple[Stored, Buffers]:
        """What ``decomposed`` works in, allocated at the first call: the feature with its halo, and buffers."""
        if self._whole_feature is None:
            height, width = (side + 2 * self.weights.halo for side in self.padded)
            planes = self._planes(self.weights.channels, height, width)
            self._whole_feature = planes, self._buffers(self.weights.refine_planes, height, width)
        return self._whole_feature


class _MaskBranch:
    """The mask branch on the coarse feature."""

    def __init__(self, mask: MaskPrediction, order: str, make: MakeChain):
        self.module, self.order = mask, order
        weight, bias = weight_and_bias(mask.conv2)
        assert bias is not None
        if len(bias) == 2:  # softmax of two is the sigmoid of their difference
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        stages = [
            Stage(Conv.of(mask.conv1, 0.0), "feature", "hidden"),
            Stage(Conv(weight, bias, floats=True), "hidden", "scores"),
        ]
        self.chain = make(stages, ["feature", "scores"])

    def __call__(self, area: Grid, feature: Stored, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        p = self.module.patch_size
        self.chain(area, {"feature": feature, "scores": scores})
        if self.module.conv2.out_channels == 1:
            probability = F.leaky_relu(F.avg_pool2d(scores[None], p), 0.1)
        elif self.module.order == "softmax-then-pool":
            probability = F.avg_pool2d(scores[None].sigmoid_(), p)
        else:
            probability = F.avg_pool2d(scores[None], p).sigmoid()
        source = probability
        if self.module.filter_source != "probability":
            source = F.avg_pool2d(feature.read()[None, : self.module.channels], p)
        weight, bias = self.module.conv_kernel.parameters()
        return filter_and_select(probability[:, 0], source, weight, bias, k, self.order)
