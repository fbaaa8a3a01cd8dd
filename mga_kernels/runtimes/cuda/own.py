"""The plan for GPUs in convolutions of our own: what networks say of their layers, in pixel maps and one CUDA graph."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ...networks import ClassNetwork, SRNetwork
from ...networks.interface import Halves
from ...networks.mask import MaskPrediction
from ..cpu.plan import PairWeights
from ..cpu.region_plan import RegionPlan, RegionWeights
from ..plan import PatchPlan, Plan, Planner
from .capture import may_capture
from .classes import PixelClasses, PixelClassPlan
from .pixels import Pixels
from .regions import PixelRegions
from .replayed import IN_FLIGHT, ReplayedPlan

Weights = PairWeights | RegionWeights | PixelClasses


class OwnPlanner(Planner):
    """A network's ``weights`` in ``storage`` on ``device``; ``of`` says where there are none.

    ``captured=False`` launches every kernel by itself.
    """

    takes_place = begins = True

    def __init__(self, weights: Weights, storage: Pixels, device: torch.device, captured: bool = True):
        self.weights, self.storage, self.device, self.narrow = weights, storage, device, storage.dtype
        self.wants_graph = captured and device.type == "cuda"

    @classmethod
    def of(
        cls, network: SRNetwork, device: torch.device, dtype: torch.dtype | None = None, captured: bool = True
    ) -> OwnPlanner | str:
        """The planner, ``dtype`` None for float16, or why there is none."""
        dtype = dtype or torch.float16
        device = torch.empty(0, device=device).device  # with its number, as tensors say it
        if dtype not in (torch.float16, torch.bfloat16):
            return f"convolutions of our own are in float16 and bfloat16, and {str(dtype)[6:]} was asked for"
        storage = Pixels(dtype)
        weights = weights_of(network, storage, device)
        return weights if isinstance(weights, str) else cls(weights, storage, device, captured)

    @property
    def description(self) -> str:
        what = {RegionWeights: ", in regions", PixelClasses: ", by classes"}.get(type(self.weights), "")
        how = "in a CUDA graph" if self.wants_graph and may_capture() else "uncaptured"
        return f"{self.storage.description}{what}, {how}"

    def plan(self, height: int, width: int, capacity: int) -> OwnPlan:
        kind = {RegionWeights: OwnRegions, PixelClasses: OwnClasses}.get(type(self.weights), OwnPatches)
        return kind(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        image, picture = 3 * height * width, 3 * height * width * self.weights.config.scale**2
        averages = isinstance(self.weights, RegionWeights) and self.weights.network.averages
        between = 2 * picture if averages else 0  # what ``average_`` needs of a whole picture
        return self.weights.bytes_needed(height, width, capacity, dense) + IN_FLIGHT * (image + picture) + between


def weights_of(network: SRNetwork, storage: Pixels, device: torch.device) -> Weights | str:
    """The weights of a network, of the two whole ones of which one refines regions, or of the branches of classes; or
    why there are none."""
    if network.alternatives:
        return _of_classes(cast(ClassNetwork, network), storage, device)
    if network.pair is not None:
        base, refine = network.pair
        reason = RegionWeights.against(refine, storage)
        small, large = (reason or weights_of(part, storage, device) for part in (base, refine))
        for part in (small, large):
            if not isinstance(part, PairWeights):
                return str(part)
        return RegionWeights(network, cast(PairWeights, small), cast(PairWeights, large), PixelRegions)
    if network.staged is None:
        return f"there are none for {network.config.network} yet"
    halves = network.halves()
    if isinstance(halves, str):
        return halves
    kind = halves.config.definition.weights
    refused = kind.against(halves, storage)
    if refused is not None:
        return cast(str, refused)
    with device:  # where what the network's class makes of its weights is, and what it keeps of its modules
        return cast(PairWeights, kind(_moved(halves, device), storage))


def _of_classes(network: ClassNetwork, storage: Pixels, device: torch.device) -> PixelClasses | str:
    branches = []
    for one in network.alternatives:
        made = weights_of(one, storage, device)
        reason = made if isinstance(made, str) else PixelClasses.against(made)
        if reason is not None:
            return reason
        branches.append(cast(PairWeights, made))
    return PixelClasses(network, branches, device)


class OwnPlan(ReplayedPlan):
    """The steps are those of the plan for CPUs (``inner``), which has its tensors on the GPU."""

    inner: Plan

    def __init__(self, planner: OwnPlanner, height: int, width: int, capacity: int):
        super().__init__(planner.weights.config, height, width, capacity)
        self.planner = planner
        with planner.device:
            self.inner = planner.weights.plan(height, width, capacity)
            flag = torch.ones((), dtype=torch.bool)
        self.prepare(flag, planner.wants_graph)

    @property
    def device(self) -> torch.device:
        return self.planner.device

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.inner.place = self.place
        self._call(self.inner.coarse, image.to(self.device), out)

    def decomposed(self, out: Tensor) -> None:
        self._call(self.inner.decomposed, out)

    def _call(self, step: Any, *arguments: Any) -> Any:
        """On the device, with pictures that tell this plan of values that are not finite."""
        self.planner.storage.finite = self.flag
        with self.device:
            return step(*arguments)

    def _forget(self) -> None:
        self._chosen = None


class OwnPatches(OwnPlan, PatchPlan):
    """Of whole networks, of which no cells are refined, and of those that refine patches."""

    inner: PatchPlan

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self._call(self.inner.select, k)

    def gather(self, indices: Tensor) -> None:
        self._call(self.inner.gather, indices)

    def patches(self) -> Tensor:
        return self.inner.patches()

    def load(self, patches: Tensor) -> None:
        self._call(self.inner.load, patches.to(self.device))

    def refined(self) -> Tensor:
        return self._call(self.inner.refined)


class OwnRegions(OwnPlan):
    """Of networks that refine regions, in lists of tiles that are made on the device."""

    inner: RegionPlan

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self._call(self.by_detail, k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        self._call(self.inner.refine, indices.to(self.device), out)

    def _forget(self) -> None:
        super()._forget()
        self.inner.forget()


class OwnClasses(OwnPlan):
    """Of networks of which each sub-image takes one."""

    inner: PixelClassPlan

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self._call(self.by_detail, k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        self.inner.refine(indices, out)

    def _forget(self) -> None:
        super()._forget()
        self.inner.places.forget()


def _moved(halves: Halves, device: torch.device) -> Halves:
    base, refine, mask = (
        None if module is None else copy.deepcopy(module).float().to(device)
        for module in (halves.base, halves.refine, halves.mask)
    )
    assert base is not None
    return replace(halves, base=base, refine=refine, mask=cast(MaskPrediction | None, mask))
