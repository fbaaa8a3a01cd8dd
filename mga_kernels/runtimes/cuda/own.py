"""The plan for GPUs in convolutions of our own: what networks say of their layers, in pixel maps and one CUDA graph."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ...networks import SRNetwork
from ...networks.interface import Halves
from ...networks.mask import MaskPrediction
from ..plan import PatchPlan, Planner
from .capture import may_capture
from .pixels import Pixels
from .replayed import IN_FLIGHT, ReplayedPlan


class OwnPlanner(Planner):
    """``network`` on ``device`` in convolutions of our own; ``of`` says where there are none.

    ``captured=False`` launches every kernel by itself.
    """

    takes_place = begins = True

    def __init__(self, halves: Halves, device: torch.device, dtype: torch.dtype, captured: bool = True):
        self.device, self.narrow, self.storage = device, dtype, Pixels(dtype)
        self.wants_graph = captured and device.type == "cuda"
        with device:  # where what the network's class makes of its weights is, and what it keeps of its modules
            self.weights = halves.config.definition.weights(_moved(halves, device), self.storage)

    @classmethod
    def of(
        cls, network: SRNetwork, device: torch.device, dtype: torch.dtype | None = None, captured: bool = True
    ) -> OwnPlanner | str:
        """The planner, ``dtype`` None for float16, or why there is none."""
        dtype = dtype or torch.float16
        if dtype not in (torch.float16, torch.bfloat16):
            return f"convolutions of our own are in float16 and bfloat16, and {str(dtype)[6:]} was asked for"
        if network.staged is None:
            return f"there are none for {network.config.network} yet"
        halves = network.halves()
        if isinstance(halves, str):
            return halves
        refused = halves.config.definition.weights.against(halves, Pixels(dtype))
        return refused or cls(halves, device, dtype, captured)

    @property
    def description(self) -> str:
        how = "in a CUDA graph" if self.wants_graph and may_capture() else "uncaptured"
        return f"{self.storage.description}, {how}"

    def plan(self, height: int, width: int, capacity: int) -> OwnPlan:
        return OwnPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        slots = 3 * IN_FLIGHT * height * width * (1 + self.weights.config.scale**2)
        return self.weights.bytes_needed(height, width, capacity, dense) + slots


class OwnPlan(ReplayedPlan, PatchPlan):
    """The steps are those of the plan for CPUs (``inner``), which has its tensors on the GPU."""

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

    def decomposed(self, out: Tensor) -> None:
        self._call(self.inner.decomposed, out)

    def _call(self, step: Any, *arguments: Any) -> Any:
        """On the device, with pictures that tell this plan of values that are not finite."""
        self.planner.storage.finite = self.flag
        with self.device:
            return step(*arguments)

    def _forget(self) -> None:
        self._chosen = None


def _moved(halves: Halves, device: torch.device) -> Halves:
    base, refine, mask = (
        None if module is None else copy.deepcopy(module).float().to(device)
        for module in (halves.base, halves.refine, halves.mask)
    )
    assert base is not None
    return replace(halves, base=base, refine=refine, mask=cast(MaskPrediction | None, mask))
