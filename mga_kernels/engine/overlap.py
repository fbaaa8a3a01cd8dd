"""Images one after another: while one is computed, the next is read and the one before is written.

Computing stays in the thread of the caller, where Ctrl-C arrives and where the threads of PyTorch and the memory of
the plan are at home; a second computing thread would have both once more. Pillow lets go of the interpreter while it
decodes and encodes, so threads are enough for the rest. A GPU computes while this thread goes on, so there an image is
begun before the one before it is waited for: the way of its bytes is hidden behind the computation.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..quantities import check_whole_number

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Written = TypeVar("Written")
Made = TypeVar("Made", covariant=True)


class Begun(Protocol[Made]):
    """What is being computed elsewhere, as a Future has it."""

    def done(self) -> bool:
        """Whether ``result`` has nothing to wait for."""

    def result(self) -> Made: ...


class Then(Generic[Loaded, Computed]):
    """What is begun, and what is made of its result; ``run`` calls what waits for it and makes that."""

    def __init__(
        self,
        begun: Begun[Loaded],
        then: Callable[[Loaded], Computed],
        run: Callable[[Callable[[], Computed]], Computed] = lambda step: step(),
    ):
        self.begun, self.then, self.run, self.done = begun, then, run, begun.done

    def result(self) -> Computed:
        return self.run(lambda: self.then(self.begun.result()))


@dataclass(frozen=True)
class Outcome(Generic[Source, Written]):
    """What became of ``source``: the ``value`` of its last step, or the ``error`` of the step that failed."""

    source: Source
    value: Written | None = None
    error: Exception | None = None


def overlap(
    sources: Iterable[Source],
    read: Callable[[Source], Loaded],
    compute: Callable[[Loaded], Computed],
    write: Callable[[Computed], Written],
    ahead: int = 2,
    writers: int = 1,
    begin: Callable[[Loaded], Begun[Computed] | None] = lambda loaded: None,
) -> Generator[Outcome[Source, Written], None, None]:
    """``write(compute(read(source)))`` of every source, in their order.

    ``begin``: what is read is begun, and its result is what ``compute`` would make of it; where it gives None, or
    fails, ``compute`` has its turn. One that was begun is waited for when the next one is begun too, or no next one is
    there, or none is read yet and this one is done.

    ``compute``, ``begin`` and the iterator of ``sources`` run in the thread that asks for outcomes, while it asks;
    ``read`` in a thread of its own, ``write`` in ``writers`` threads. Of the sources that were taken, at most ``ahead``
    besides the one that is being computed have no outcome yet. An Exception of a step is the outcome of its source and
    stops no other; what is not an Exception, and any error of ``sources`` itself, ends the iterator. A source for which
    memory runs out is tried once more when those before it are written.

    Closing the iterator, by ``close`` or an exception in it such as KeyboardInterrupt, drops what has not begun, waits
    for the reading and writing that has, and leaves no thread behind.
    """
    ahead = check_whole_number("ahead is a number of images", ahead, 0)
    writers = check_whole_number("writing is done by a number of threads", writers, 1)
    return _Overlap(read, begin, compute, write, writers).outcomes(iter(sources), ahead)


class _Overlap(Generic[Source, Loaded, Computed, Written]):
    def __init__(
        self,
        read: Callable[[Source], Loaded],
        begin: Callable[[Loaded], Begun[Computed] | None],
        compute: Callable[[Loaded], Computed],
        write: Callable[[Computed], Written],
        writers: int,
    ):
        self.read, self.begin, self.compute, self.write = read, begin, compute, write
        self.reader, self.writer = ThreadPoolExecutor(1, "mga-read"), ThreadPoolExecutor(writers, "mga-write")
        self.reading: deque[tuple[Source, Future[Loaded]]] = deque()
        self.begun: deque[tuple[Source, Begun[Computed]]] = deque()
        self.writing: deque[tuple[Source, Future[Written]]] = deque()
        self.stopped = threading.Event()
        self.process = os.getpid()

    def outcomes(self, sources: Iterator[Source], ahead: int) -> Generator[Outcome[Source, Written], None, None]:
        try:
            while self._take(sources, ahead + 1) or self.begun or self.writing:
                if os.getpid() != self.process:
                    raise RuntimeError("another process began these images, and its threads are not here; begin anew")
                if self.writing and self.writing[0][1].done():
                    yield self._first()
                elif self.reading and (self.reading[0][1].done() or not (self.begun and self.begun[0][1].done())):
                    self._next()
                elif self.begun:
                    self._finish()
                else:
                    yield self._first()
        finally:
            self.stopped.set()
            self.reader.shutdown(wait=False, cancel_futures=True)
            self.writer.shutdown(wait=True, cancel_futures=True)
            self.reader.shutdown(wait=True)

    def _take(self, sources: Iterator[Source], most: int) -> bool:
        """Begin to read what there is room for; whether anything is being read."""
        while len(self.reading) + len(self.begun) + len(self.writing) < most:
            try:
                source = next(sources)
            except StopIteration:
                break
            self.reading.append((source, self.reader.submit(self._unless_stopped, self.read, source)))
        return bool(self.reading)

    def _next(self) -> None:
        """Begin what is read next, or compute it; and finish what was begun before it."""
        source, loading = self.reading.popleft()
        begun = self._begun(loading)
        while self.begun:
            self._finish()
        if begun is None:
            self._submit(source, lambda: self.compute(loading.result()))
        else:
            self.begun.append((source, begun))

    def _begun(self, loading: Future[Loaded]) -> Begun[Computed] | None:
        try:
            return self.begin(loading.result())
        except Exception:  # ``compute`` says it, or has another way
            return None

    def _finish(self) -> None:
        source, begun = self.begun.popleft()
        self._submit(source, begun.result)

    def _submit(self, source: Source, compute: Callable[[], Computed]) -> None:
        """Compute, and begin to write."""
        try:
            writing = self.writer.submit(self._unless_stopped, self.write, self._computed(source, compute))
        except Exception as error:
            writing = Future()
            writing.set_exception(error)
        self.writing.append((source, writing))

    def _computed(self, source: Source, compute: Callable[[], Computed]) -> Computed:
        try:
            return compute()
        except MemoryError:  # ours, or one of a library
            if not self.writing:
                raise
        wait([future for _, future in self.writing])
        return self.compute(self.read(source))

    def _first(self) -> Outcome[Source, Written]:
        source, future = self.writing.popleft()
        try:
            return Outcome(source, future.result())
        except Exception as error:
            return Outcome(source, error=error)

    def _unless_stopped(self, step: Callable[[Any], Any], value: Any) -> Any:
        if self.stopped.is_set():
            raise RuntimeError("the images before this one were broken off")
        try:
            return step(value)
        except Exception:
            raise
        except BaseException:  # nothing begins after it, although the caller only hears of it later
            self.stopped.set()
            raise
