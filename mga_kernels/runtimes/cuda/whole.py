"""The plan for whole networks on GPUs: the same road, without a mask."""

from __future__ import annotations

import copy

import torch

from ...networks.whole import WholeNetwork
from ..plain import WholeModulePlan, WholeModulePlanner
from ..precision import describe
from .graph import RoadPlan, how


class WholeGraphPlanner(WholeModulePlanner):
    """A copy of ``network`` on ``device`` in channels-last; ``dtype`` None is float16, the fastest there."""

    def __init__(self, network: WholeNetwork, device: torch.device, dtype: torch.dtype | None = None):
        network = copy.deepcopy(network).to(device, dtype or torch.float16)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network)
        self.narrow = self.dtype
        self.wants_graph = device.type == "cuda"

    @property
    def description(self) -> str:
        return f"{describe(self.dtype, self.dtype)}, {how(self)}"

    def plan(self, height: int, width: int, capacity: int) -> WholeGraphPlan:
        return WholeGraphPlan(self, height, width)


class WholeGraphPlan(RoadPlan, WholeModulePlan):
    planner: WholeGraphPlanner

    def __init__(self, planner: WholeGraphPlanner, height: int, width: int):
        super().__init__(planner, height, width)
        self._prepare(self.finite)

    def _walk(self, dense: bool, k: int) -> None:
        self.report.zero_()
        self.flag.fill_(True)
        self.finite = self.flag
        self.coarse(self.input, self.whole)
        self.report[0].copy_(self.flag)

    def _forget(self) -> None:
        self.image = torch.empty(0)
