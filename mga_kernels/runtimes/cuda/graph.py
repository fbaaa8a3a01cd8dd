"""The plan for GPUs that takes every network as it is: its modules in one CUDA graph (``replayed``)."""

from __future__ import annotations

import copy

import torch

from ...networks import SRNetwork
from ..precision import describe
from ..pytorch.modules import ModulePatches, ModulePlan, ModulePlanner, ModuleRegions
from .capture import may_capture
from .replayed import ReplayedPlan


class CudaGraphPlanner(ModulePlanner):
    """A copy of ``network`` on ``device`` in channels-last; ``dtype`` None is float16, the fastest there.

    ``captured=False`` launches every kernel by itself.
    """

    begins = True

    def __init__(
        self,
        network: SRNetwork,
        device: torch.device,
        dtype: torch.dtype | None = None,
        captured: bool = True,
    ):
        network = copy.deepcopy(network).to(device, dtype or torch.float16)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network)
        self.narrow = self.dtype
        self.wants_graph = captured and device.type == "cuda"

    @property
    def description(self) -> str:
        how = "in a CUDA graph" if self.wants_graph and may_capture() else "uncaptured"
        return f"{describe(self.dtype, self.refine_dtype)}, {how}"

    def plan(self, height: int, width: int, capacity: int) -> CudaGraphPlan:
        kind = CudaGraphPatches if self.network.pair is None else CudaGraphRegions
        return kind(self, height, width, capacity)


class CudaGraphPlan(ReplayedPlan, ModulePlan):
    """A network's modules one after the other, our operators between them."""

    planner: CudaGraphPlanner

    def __init__(self, planner: CudaGraphPlanner, height: int, width: int, capacity: int):
        super().__init__(planner, height, width, capacity)
        self.prepare(self.finite, planner.wants_graph)

    def _forget(self) -> None:
        """The memory is the graph's."""
        self.feature, self._chosen = torch.empty(0), None


class CudaGraphRegions(CudaGraphPlan, ModuleRegions):
    """Of networks that refine regions; what is refined is all of the image."""


class CudaGraphPatches(CudaGraphPlan, ModulePatches):
    """Of whole networks, of which no cells are refined, and of those that refine patches."""

    def _forget(self) -> None:
        super()._forget()
        self.taken = torch.empty(0)
