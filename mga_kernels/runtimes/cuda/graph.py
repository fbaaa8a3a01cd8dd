"""The plan for GPUs that takes every network as it is: its modules in one CUDA graph (``replayed``)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...networks import SRNetwork
from ...ops import paste_shuffled_
from ..finite import is_finite
from ..precision import describe
from ..pytorch.modules import ModulePatches, ModulePlan, ModulePlanner, ModuleRegions
from .capture import may_capture
from .fused import FusedRefine
from .replayed import ReplayedPlan

COMPILE: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs"}  # the graph is ours


@dataclass(frozen=True)
class Settings:
    """``compiled``: the halves of the network by torch.compile. ``fused``: the Refine-Net by ``FusedRefine``."""

    compiled: bool = False
    fused: bool = False


class CudaGraphPlanner(ModulePlanner):
    """A copy of ``network`` on ``device`` in channels-last; ``dtype`` None is float16, the fastest there.

    ``settings``: eager modules where not given, until ``bench/gpu.py engine`` has measured what is fastest.
    ``captured=False`` launches every kernel by itself.
    """

    begins = True

    def __init__(
        self,
        network: SRNetwork,
        device: torch.device,
        dtype: torch.dtype | None = None,
        settings: Settings | None = None,
        captured: bool = True,
    ):
        network = copy.deepcopy(network).to(device, dtype or torch.float16)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network)
        self.narrow = self.dtype
        self.settings = settings or Settings()
        self.wants_graph = captured and device.type == "cuda"
        self.fused = FusedRefine.of(network) if self.settings.fused else None
        if self.settings.compiled:
            for module in filter(None, (network.front, self.trunk, network.back)):
                module.compile(**COMPILE, dynamic=False)
            if self.fused is not None:
                self.fused.body = torch.compile(self.fused.body, **COMPILE, dynamic=False)

    @property
    def description(self) -> str:
        how = "in a CUDA graph" if self.wants_graph and may_capture() else "uncaptured"
        parts = [describe(self.dtype, self.refine_dtype), how]
        parts += ["compiled"] if self.settings.compiled else []
        parts += ["with a fused Refine-Net"] if self.fused is not None else []
        return ", ".join(parts)

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

    def refine(self, indices: Tensor, out: Tensor) -> None:
        fused = self.planner.fused
        if fused is None:
            super().refine(indices, out)
            return
        values = fused(self.feature, indices)
        self.finite.logical_and_(is_finite(values))
        image, gain = out.permute(2, 0, 1)[None], 1 / self.config.value_range
        paste_shuffled_(image, values, indices, fused.shuffle, gain)  # type: ignore[call-arg]

    def _forget(self) -> None:
        super()._forget()
        self.taken = torch.empty(0)
