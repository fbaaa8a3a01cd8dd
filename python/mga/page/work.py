"""The pictures of all pages upscaled one after the other, as ``mga upscale`` does it: those of each page in turn."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mga_kernels.images import Photo

from ..console.failures import line_about
from ..upscaling.jobs import Request, Source, plan
from ..upscaling.work import Work, compute_job, read_job, write_job
from .visits import Limits, Task, Visit, Visits

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

# Words of `mga upscale` -> (what is asked for, which model that is, how to load it); InputError where they are wrong.
Asked = tuple[Request, tuple[str, ...], "Callable[[], MaskGuidedSR]"]
Reader = Callable[[Sequence[str]], Asked]
_MODELS = 2  # that are kept loaded, so that two can be compared
_SWEEP = 5.0  # seconds between two looks at which pages are forgotten


class Worker:
    """The thread that computes. ``read`` is as Reader; ``said`` gives what its thread was warned of."""

    def __init__(self, visits: Visits, limits: Limits, read: Reader, said: Callable[[], list[str]]) -> None:
        self._visits, self._limits, self._read, self._said = visits, limits, read, said
        self._waiting: OrderedDict[str, tuple[Visit, deque[Task]]] = OrderedDict()
        self._models: OrderedDict[tuple[str, ...], MaskGuidedSR] = OrderedDict()
        self._changed, self._ended = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="upscaling", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, visit: Visit, tasks: Sequence[Task]) -> None:
        with self._changed:
            self._waiting.setdefault(visit.id, (visit, deque()))[1].extend(tasks)
            self._changed.notify()

    def check(self, task: Task) -> None:
        """InputError where the options of a task cannot be; the picture is not looked at."""
        self._read(_words(task))

    def close(self) -> None:
        """Let the thread end with the picture that it is at, and wait for that."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(1)
        if self._thread.is_alive():
            print("mga: the picture at work is finished first; Ctrl-C once more ends at once", file=sys.stderr)
            self._thread.join()

    def _run(self) -> None:
        while (found := self._next()) is not None:
            visit, task = found
            if visit.gone:
                continue
            self._do(task)
            if visit.gone:  # its page was closed meanwhile, and this has made its folder anew
                visit.remove()

    def _next(self) -> tuple[Visit, Task] | None:
        """The next task, of the page whose turn it is; None at the end."""
        with self._changed:
            while not self._ended:
                for id, (visit, tasks) in list(self._waiting.items()):
                    if visit.gone or not tasks:
                        del self._waiting[id]
                        continue
                    self._waiting.move_to_end(id)
                    return visit, tasks.popleft()
                self._changed.wait(_SWEEP)
                self._visits.forget()
        return None

    def _do(self, task: Task) -> None:
        task.state, task.started = "working", time.monotonic()
        try:
            self._upscale(task)
            task.state = "done"
        except Exception as error:  # of one picture; the others go on
            task.error = _named(line_about(Path(task.picture.name), error), task)
            task.state = "failed"

    def _upscale(self, task: Task) -> None:
        self._said()
        request, which, load = self._read(_words(task))
        model = self._model(which, load)
        size = request.size.of(*task.picture.size, model.scale)
        self._limits.check_pixels(f"the result of {task.picture.name}", *size)
        started = time.perf_counter()
        task.folder.mkdir(exist_ok=True)
        (job,) = plan(request, [Source(task.picture.path)])
        work = read_job(job, model.scale, request)
        if task.with_mask and _has_mask(model, work, request):
            work.job = replace(job, mask=task.folder / "mask.png")
        work = compute_job(model, work, request.size, request.wrap)
        lines = write_job(work, request, [])
        task.seconds = time.perf_counter() - started
        task.result, task.mask, task.size, task.how = job.target, work.job.mask, work.size, work.how
        task.notes = [_named(line.strip(), task) for line in [*lines[1:], *self._said()]]

    def _model(self, which: tuple[str, ...], load: Callable[[], MaskGuidedSR]) -> MaskGuidedSR:
        if which not in self._models:
            while len(self._models) >= _MODELS:
                self._models.popitem(last=False)
            self._models[which] = load()
        self._models.move_to_end(which)
        return self._models[which]


def _words(task: Task) -> list[str]:
    return [str(task.picture.path), "-o", f"{task.folder}/", *task.options]


def _has_mask(model: MaskGuidedSR, work: Work, request: Request) -> bool:
    """Whether it can be shown which cells are refined, and showing it leaves the result as it is."""
    photo = work.photo
    if not model.masked or model.settings.mode == "dense" or not isinstance(photo, Photo):
        return False
    larger = work.size[0] > photo.size[0] or work.size[1] > photo.size[1]
    return larger and not (photo.goes_round if request.wrap is None else request.wrap)


def _named(text: str, task: Task) -> str:
    """The sentence with names of files as their owner knows them."""
    for folder in (f"{task.folder}/", f"{task.picture.folder}/"):
        text = text.replace(folder, "")
    name = task.picture.name
    rest = text.removeprefix(f"{name}: ")
    return rest if name in rest else text  # once is enough
