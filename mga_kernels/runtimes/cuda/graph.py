"""The plan for GPUs: all that happens between the bytes of a photograph and those of its picture is one CUDA graph.

Shapes are static because K is known, so the road is captured once and replayed: for an image the host copies bytes
into pinned memory, launches the graph and waits for the result, with which comes whether all values were finite.
Up to two photographs may be in flight (``begin``, ``finish``), so that transfers hide behind the computation.

On a CPU the same road runs uncaptured, which is how it is tested. It has not run on a GPU yet.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...modes import ordinary
from ...networks import MaskGuidedNetwork
from ...notices import warn
from ...ops import paste_shuffled_
from ..finite import is_finite
from ..precision import describe
from ..pytorch.modules import ModulePlan, ModulePlanner
from .fused import FusedRefine
from .transfers import Lane, Slot

WARM_UPS = 3  # runs before the capture: they compile, choose algorithms and make workspaces
ROADS_KEPT = 2  # captured roads of a plan: masked and dense
IN_FLIGHT = 2
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

    def __init__(
        self,
        network: MaskGuidedNetwork,
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
        self.captured = captured and device.type == "cuda"
        self.fused = FusedRefine.of(network) if self.settings.fused else None
        parts = ["in a CUDA graph" if self.captured else "uncaptured"]
        if self.settings.compiled:
            for module in (network.base, self.trunk, network.refine):
                module.compile(**COMPILE, dynamic=False)
            if self.fused is not None:
                self.fused.body = torch.compile(self.fused.body, **COMPILE, dynamic=False)
            parts.append("compiled")
        if self.fused is not None:
            parts.append("with a fused Refine-Net")
        self.description = f"{describe(self.dtype, self.refine_dtype)}, {', '.join(parts)}"

    def plan(self, height: int, width: int, capacity: int) -> CudaGraphPlan:
        return CudaGraphPlan(self, height, width, capacity)


class CudaGraphPlan(ModulePlan):
    """``coarse``, ``select`` and ``refine`` run kernel by kernel; ``run`` and ``dense`` replay.

    What ``run`` returns is pinned memory of its own, which the caller may keep.
    """

    planner: CudaGraphPlanner

    def __init__(self, planner: CudaGraphPlanner, height: int, width: int, capacity: int):
        super().__init__(planner, height, width, capacity)
        device, scale = planner.device, self.config.scale
        self.input = torch.empty(height, width, 3, dtype=torch.uint8, device=device)
        self.whole = self.buffer()
        self.flag = self.finite  # on the device; ``finite`` is on the host where the last result came from a replay
        self.report = torch.zeros(2, dtype=torch.int32, device=device)  # all finite, cells chosen
        self._compute, self._up, self._down = (Lane(device) for _ in range(3))
        self._slots = [
            Slot(device, (height, width), (height * scale, width * scale), self.report) for _ in range(IN_FLIGHT)
        ]
        self._roads: OrderedDict[tuple[bool, int, float | None], Callable[[], None]] = OrderedDict()
        self._pool: Any = None  # the memory that the roads of a plan share: one at a time walks
        self._turn, self._count = 0, None

    _count: int | None  # cells chosen, where the last result came from a replay

    def start(self) -> None:
        self.finite, self._count = self.flag, None
        super().start()

    def warm(self, dense: bool = False) -> None:
        with ordinary(), self._on_device():
            self._road(dense, self.capacity)

    def chosen(self) -> int:
        return super().chosen() if self._count is None else self._count

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        with _without_tf32():
            super().coarse(image, out)

    def refined(self) -> Tensor:
        with _without_tf32():
            return super().refined()

    def refine(self, indices: Tensor, out: Tensor) -> None:
        fused = self.planner.fused
        if fused is None:
            super().refine(indices, out)
            return
        with _without_tf32():
            values = fused(self.feature, indices)
        self.finite.logical_and_(is_finite(values))
        image, gain = out.permute(2, 0, 1)[None], 1 / self.config.value_range
        paste_shuffled_(image, values, indices, fused.shuffle, gain)  # type: ignore[call-arg]

    def decomposed(self, out: Tensor) -> None:
        with _without_tf32():
            super().decomposed(out)

    @ordinary()
    def run(self, image: Tensor, k: int | None = None, out: Tensor | None = None) -> Tensor:
        return self.finish(self.begin(image, k), out)

    @ordinary()
    def dense(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        return self.finish(self.begin(image, dense=True), out)

    @ordinary()
    def begin(self, image: Tensor, k: int | None = None, dense: bool = False) -> Slot:
        """Queue -M (-D if ``dense``) of uint8 (H, W, 3); at most IN_FLIGHT images may be begun and not finished."""
        with self._on_device():
            replay = self._road(dense, self.capacity if k is None else k)
            slot = self._slots[self._turn]
            self._turn = (self._turn + 1) % IN_FLIGHT
            self._compute.after_callers()
            uploaded = slot.upload(self._up, image)
            with self._compute:
                self._compute.after(uploaded)
                self.input.copy_(slot.image)
                replay()
                slot.picture.copy_(self.crop(self.whole))
                slot.report.copy_(self.report)
                computed = self._compute.mark()
            slot.download(self._down, computed)
        return slot

    @ordinary()
    def finish(self, slot: Slot, out: Tensor | None = None) -> Tensor:
        """The picture that ``begin`` queued, in ``out`` where given; ``finite`` and ``chosen`` are about it then."""
        slot.done.wait()
        finite, self._count = slot.host_report.tolist()
        self.finite = torch.tensor(bool(finite))
        result, slot.result = slot.result, None
        assert result is not None, "finish was called twice for one image"
        return result if out is None else out.copy_(result)

    def _road(self, dense: bool, k: int) -> Callable[[], None]:
        """What runs the road from ``input`` to ``whole`` and ``report``; captured at the first question."""
        key = dense, 0 if dense else k, self.threshold
        if key not in self._roads:
            while len(self._roads) >= ROADS_KEPT:
                self._roads.popitem(last=False)
            self._roads[key] = self._capture(lambda: self._walk(dense, k))
        self._roads.move_to_end(key)
        return self._roads[key]

    def _walk(self, dense: bool, k: int) -> None:
        """All of it, without a value that the host would need."""
        self.report.zero_()
        self.flag.fill_(True)
        self.finite = self.flag
        self.coarse(self.input, None if dense else self.whole)
        if dense:
            self.decomposed(self.whole)
        elif k:
            _, indices = self.choose(k)
            self.refine(indices, self.whole)
            self.report[1].copy_((indices >= 0).sum())
        self.report[0].copy_(self.flag)
        self.feature, self.taken, self._chosen = torch.empty(0), torch.empty(0), None  # the graph's memory is not ours

    def _capture(self, walk: Callable[[], None]) -> Callable[[], None]:
        if not self.planner.captured:
            return walk
        self.input.zero_()
        self._compute.after_callers()
        with self._compute:
            for _ in range(WARM_UPS):
                walk()
        torch.cuda.synchronize(self.device)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may decode into pinned memory meanwhile, which a global capture would not bear.
            mode = "thread_local"
            with torch.cuda.graph(graph, self._pool, self._compute.stream, capture_error_mode=mode):
                walk()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warn(
                f"{self.config.network} cannot be captured in a CUDA graph ({reason}); its kernels are launched one "
                'by one, which is slower. runtime="pytorch" does so without this attempt'
            )
            return walk
        return graph.replay

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.device(self.device):
            yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """float32 means float32; cuDNN rounds to TF32 unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
