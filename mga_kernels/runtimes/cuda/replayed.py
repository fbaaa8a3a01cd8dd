"""Plans for GPUs in which all that happens between a photograph's bytes and those of its picture is one CUDA graph.

Shapes are static because K is known, so all is captured once and replayed: for an image the host copies bytes
into pinned memory, launches the graph and waits for the result, with which comes whether all values were finite.
The next may be begun before that (``begin``, ``finish``), so that transfers hide behind the computation: there are two
slots, each with a graph of its own, which reads the slot's bytes and writes its picture, so nothing is copied on the
way. A third image waits for the slot of the first.

On a CPU the same runs uncaptured, which is how it is tested. It has not run on a GPU yet.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...modes import ordinary
from ...notices import warn
from ...system.memory import keep_pool
from ..plan import Plan
from .capture import CannotCapture, capture, may_capture
from .transfers import InFlight, Lane, Slot

WARM_UPS = 3  # runs before the capture: they compile, choose algorithms and make workspaces
IN_FLIGHT = 2
REPLAYS_KEPT = 2 * IN_FLIGHT  # graphs of a plan: masked and dense, of each slot


class ReplayedPlan(Plan):
    """``coarse``, ``select``, ``refine`` run kernel by kernel; ``run`` and ``dense`` replay what ``_run_all`` does.

    A plan of this kind calls ``prepare`` when it has its ``device``. What it returns is pinned memory of its own, which
    the caller may keep. ``flag``, a bool on the device, is whether all values were finite; ``finite`` is on the host
    where the last result came from a replay.
    """

    flag: Tensor
    wants_graph: bool
    _count: int | None = None  # cells chosen, where the last result came from a replay

    def prepare(self, flag: Tensor, wants_graph: bool) -> None:
        """Buffers and lanes; ``flag``, which the steps write, and whether a graph is wanted."""
        device, scale, height, width = self.device, self.config.scale, self.height, self.width
        self.finite = self.flag = flag
        self.wants_graph = wants_graph
        self._slots = [Slot(device, (height, width), (height * scale, width * scale)) for _ in range(IN_FLIGHT)]
        self.buffer(self._slots[0].picture)  # made now where pictures are parts of a larger one, of whole cells
        self._compute, self._up, self._down = (Lane(device) for _ in range(3))
        for lane in (self._compute, self._up, self._down):
            lane.after_callers()  # in whose stream all this was allocated: others may still use the memory there
        self._replays: OrderedDict[tuple[int, bool, int, float | None], Callable[[], None]] = OrderedDict()
        self._pool: Any = None  # the memory that the graphs of a plan share: one at a time runs
        self._turn = 0
        # What the plan has on the device must not go, and others have it, while images are on their way through it.
        weakref.finalize(self, _wait_for, self._slots).atexit = False

    def start(self) -> None:
        self.finite, self._count = self.flag, None
        self._compute.before_callers()  # of images that have begun: they write the flag and all that the steps do
        super().start()

    def warm(self, dense: bool = False) -> None:
        with ordinary(), self._on_device():
            for number in range(IN_FLIGHT):
                self._replay(number, dense, self.capacity)

    def chosen(self) -> int:
        return super().chosen() if self._count is None else self._count

    @ordinary()
    def run(self, image: Tensor, k: int | None = None, out: Tensor | None = None) -> Tensor:
        return self.finish(self.begin(image, k), out)

    @ordinary()
    def dense(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        return self.finish(self.begin(image, dense=True), out)

    @ordinary()
    def begin(self, image: Tensor, k: int | None = None, dense: bool = False) -> InFlight:
        """Queue -M (-D if ``dense``) of uint8 (H, W, 3). Where IN_FLIGHT images are not done it waits for the first."""
        with self._on_device():
            slot = self._slots[self._turn]
            slot.done.wait()  # its graph may be made now, and would overwrite its picture
            replay = self._replay(self._turn, dense, self.capacity if k is None else k)
            self._turn = (self._turn + 1) % IN_FLIGHT
            self._compute.after_callers()
            uploaded = slot.upload(self._up, image)
            with self._compute:
                self._compute.after(uploaded)
                replay()
                computed = self._compute.mark()
            return slot.download(self._down, computed)

    @ordinary()
    def finish(self, begun: InFlight, out: Tensor | None = None) -> Tensor:
        """The picture that ``begin`` queued, in ``out`` where given; ``finite`` and ``chosen`` are about it then."""
        result, finite, self._count = begun.result()
        self.finite = torch.tensor(finite)
        return result if out is None else out.copy_(result)

    def _replay(self, number: int, dense: bool, k: int) -> Callable[[], None]:
        """What runs all of this kind for a slot; captured at the first question."""
        key = number, dense, 0 if dense else k, self.threshold
        if key not in self._replays:
            while len(self._replays) >= REPLAYS_KEPT:
                self._replays.popitem(last=False)
            mine = weakref.ref(self)  # a plan that its graphs hold would keep gigabytes until cycles are looked for

            def run_all() -> None:
                plan = mine()
                assert plan is not None
                try:
                    plan._run_all(dense, k, number)
                finally:
                    plan._forget()

            self._replays[key] = self._captured(run_all, self._slots[number])
        self._replays.move_to_end(key)
        return self._replays[key]

    def _captured(self, run_all: Callable[[], None], slot: Slot) -> Callable[[], None]:
        if not (self.wants_graph and may_capture()):
            return run_all
        slot.image.zero_()
        self._compute.after_callers()
        with self._compute:
            for _ in range(WARM_UPS):
                run_all()
        torch.cuda.synchronize(self.device)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            keep_pool(self, self._pool)
        try:
            return capture(run_all, self._compute, self._pool)
        except CannotCapture as problem:
            warn(
                f"{self.config.network} cannot be captured in a CUDA graph ({problem}); its kernels, and those of all "
                "models that this process makes from now on, are launched one by one, which is slower. "
                'runtime="pytorch" does so without this attempt'
            )
            return run_all

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.device(self.device):
            yield

    def _run_all(self, dense: bool, k: int, number: int = 0) -> None:
        """From the bytes of a slot to its picture and report, without a value that the host would need."""
        slot = self._slots[number]
        whole = self.buffer(slot.picture)
        slot.report.zero_()
        self.flag.fill_(True)
        self.finite = self.flag
        self.show(slot.image, None if dense else whole)
        if dense:
            self.decomposed(whole)
        elif k:
            _, indices = self.choose(k)
            self.refine(indices, whole)
            slot.report[1].copy_((indices >= 0).sum())
        if whole is not slot.picture:
            slot.picture.copy_(self.crop(whole))
        slot.report[0].copy_(self.flag)

    @abstractmethod
    def _forget(self) -> None:
        """Let go of what ``_run_all`` has left: the memory is the graph's."""


def _wait_for(slots: list[Slot]) -> None:
    for slot in slots:
        slot.done.wait()
