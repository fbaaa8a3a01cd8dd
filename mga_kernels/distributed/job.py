"""The job: images to as many workers as there are, what is there left out, and no image lost when a worker is."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from ..errors import InputError
from .storages import Source, inside, storage
from .upscaler import Row, Upscaler, result_name

TRIES = 3  # of an image at which workers ended
_BATCH = 4  # images that a worker is given at a time


@dataclass(frozen=True)
class Workers:
    """``count`` of them, each with so many ``cpus`` and ``gpus``.

    None is as many as the cluster has room for: one for each GPU, or where there is none one for every two CPUs.
    ``address``: the cluster to join, as ``ray.init`` takes it; None starts one of this machine, unless RAY_ADDRESS
    names another.
    """

    count: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    address: str | None = None


def to_do(sources: Sequence[Source], output: str, suffix: str | None = None) -> tuple[list[Source], int]:
    """(the images whose result is not there, how many are); what killed workers left half written is removed.

    An output within a place that was searched is none of its images. InputError where it is that place itself, or two
    images would have one result.
    """
    owners: dict[str, Source] = {}
    within = {place: inside(place, output) for place in {source.place for source in sources}}
    for source in sources:
        part = within[source.place]
        if part == "":
            raise InputError(f"{output} is where images are read, so results cannot go there; choose another place")
        if part is not None and source.name.startswith(f"{part}/"):
            continue
        name = result_name(source.title, suffix)
        if (other := owners.setdefault(name, source)) != source:
            raise InputError(
                f"{other.place}/{other.name} and {source.place}/{source.name} would both be written to {name}; "
                "rename one or upscale them into different folders"
            )
    there = storage(output)
    there.clean()
    made = {name for name, size in there.names().items() if size}
    left = [source for name, source in owners.items() if name not in made]
    return left, len(owners) - len(left)


def upscale(sources: Sequence[Source], output: str, workers: Workers | None = None, **options: object) -> Iterator[Row]:
    """The rows of ``Upscaler`` for ``sources``, as they are finished; ``options`` are those of it.

    A worker that ends is replaced and its images are given to others; one at which three ended is an error in its row.
    Where results cannot be written, an ImageError says so before there are workers.
    Closing the iterator ends the workers, and Ray if this has started it. InputError where Ray is not installed.
    """
    workers = workers or Workers()
    Upscaler(output, **cast(dict[str, Any], options))  # what is wrong with the options is said here, once
    if not sources:
        return
    storage(output).probe()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError as error:
        raise InputError(f"cluster: Ray is not installed ({error}); pip install 'mga_kernels[ray]'") from error
    started = not ray.is_initialized()
    try:
        if started:
            try:
                ray.init(address=workers.address, include_dashboard=None, log_to_driver=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError) as problem:
                raise InputError(
                    f"cluster: {workers.address or 'a cluster'} cannot be reached ({problem})"
                ) from problem
        yield from _Pool(ray, workers, len(sources), output, options).rows(sources)
    finally:
        if started:
            ray.shutdown()


class _Pool:
    """The workers of one job."""

    def __init__(self, ray: Any, workers: Workers, most: int, output: str, options: dict[str, object]) -> None:
        self._ray = ray
        count, cpus, gpus = _shares(workers, ray.cluster_resources())
        self._count = min(count, most)
        kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Upscaler)
        self._new: Callable[[], Any] = lambda: kind.remote(output, **options)
        self._there = storage(output)
        self._suffix = cast(str | None, options.get("suffix"))

    def rows(self, sources: Sequence[Source]) -> Iterator[Row]:
        waiting, tries = deque(sources), Counter[Source]()
        idle = [self._new() for _ in range(self._count)]
        at_work: dict[Any, tuple[Any, list[Source]]] = {}
        ended = False
        try:
            while waiting or at_work:
                while idle and waiting:
                    batch = self._batch(waiting, tries)
                    worker = idle.pop()
                    at_work[worker.upscale.remote(batch)] = worker, batch
                (ready,), _ = self._ray.wait(list(at_work), num_returns=1)
                worker, batch = at_work.pop(ready)
                try:
                    rows = self._ray.get(ready)
                except self._ray.exceptions.RayActorError as problem:
                    yield from self._after_an_end(batch, waiting, tries, problem)
                    worker, ended = self._new(), True
                else:
                    yield from rows
                idle.append(worker)
            if ended:
                self._there.clean()
        finally:
            for worker in [*idle, *(worker for worker, _ in at_work.values())]:
                with suppress(Exception):  # it may have ended, and so may the cluster
                    self._ray.kill(worker)

    def _batch(self, waiting: deque[Source], tries: Counter[Source]) -> list[Source]:
        """The next images, few where they are few; one at which a worker ended comes alone."""
        size = max(1, min(_BATCH, len(waiting) // (2 * self._count)))
        batch = [waiting.popleft()]
        while len(batch) < size and waiting and not tries[batch[0]] and not tries[waiting[0]]:
            batch.append(waiting.popleft())
        return batch

    def _after_an_end(
        self, batch: Sequence[Source], waiting: deque[Source], tries: Counter[Source], problem: Exception
    ) -> Iterator[Row]:
        """The rows of what a worker that ended had finished or could not; the others wait again."""
        for source in batch:
            row: Row = {"name": source.title, "width": 0, "height": 0, "notes": "", "error": ""}
            result = result_name(source.title, self._suffix)
            if self._there.has(result):
                yield row | {"result": result, "how": "by a worker that ended later"}
                continue
            tries[source] += 1
            if tries[source] < TRIES:
                waiting.append(source)
                continue
            text = f"{source.title}: {TRIES} workers ended while it was theirs, perhaps for want of memory"
            yield row | {"result": "", "how": "", "error": f"{text} ({' '.join(str(problem).split())[:200]})"}


def _shares(workers: Workers, cluster: dict[str, float]) -> tuple[int, float, float]:
    """(how many workers, CPUs and GPUs of each)."""
    has_cpus, has_gpus = cluster.get("CPU", 0), cluster.get("GPU", 0)
    gpus = workers.gpus if workers.gpus is not None else float(has_gpus > 0)
    cpus = workers.cpus if workers.cpus is not None else min(2.0 if not gpus else 1.0, has_cpus)
    room = min(has_cpus // cpus if cpus else has_gpus, has_gpus // gpus if gpus else has_cpus)
    if room < 1:
        asked = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        raise InputError(f"cluster: a worker needs {asked}, and the cluster has {has_cpus:g} and {has_gpus:g}")
    if workers.count is not None and workers.count > room:
        raise InputError(
            f"cluster: there is room for {room:g} workers and not for {workers.count}; ask for fewer CPUs each"
        )
    return int(workers.count or room), cpus, gpus
