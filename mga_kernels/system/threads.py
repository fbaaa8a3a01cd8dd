"""Threads and processes: small work on one thread, and what a child process made by fork needs."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from .groups import control_groups, text_of

_SOFT = 1  # omp_pause_soft: what threads hold for the program is kept
LASTS = 1.0  # seconds; a dozen small files are read to know how many processors there are
_known = -math.inf, 1  # when that was found out, and how many


def one_thread() -> AbstractContextManager[None]:
    """Work of this thread in PyTorch runs on it alone, because small work on several would mostly wait for them."""
    return _at_most(1)


def allowed_threads() -> AbstractContextManager[None]:
    """Work of this thread in PyTorch runs on as many threads as there are processors for them (``processors``).

    A quota that changes meanwhile is heeded within a second.
    """
    global _known
    now = time.monotonic()
    if now - _known[0] >= LASTS:
        _known = now, processors()
    return _at_most(_known[1])


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """``torch.set_num_threads`` is for the whole process, and for every thread that starts meanwhile. OpenMP's own
    number is the calling thread's. Where PyTorch does not use OpenMP, or hides it, nothing changes.
    """
    import torch  # here, so that images are read and checked without its seconds

    before = torch.get_num_threads()  # PyTorch gives a thread its number at the first question
    setter = _openmp("omp_set_num_threads")
    if setter is None or before <= count:
        yield
        return
    setter(count)
    try:
        yield
    finally:
        setter(before)


def processors(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many this process may use at a time: those that it may run on, and the quota of every control group above it.

    A container with the time of two processors on a machine with sixty-four may run on all of them. With sixty-four
    threads it is stopped most of the time, and then often where all others wait for what one has begun.
    """
    known = getattr(os, "sched_getaffinity", None)
    found = float(len(known(0)) if known else os.cpu_count() or 1)
    for folder in control_groups("cpu", proc, cgroup):
        quota, _, period = text_of(folder / "cpu.max").strip().partition(" ")
        quota, period = quota or text_of(folder / "cpu.cfs_quota_us"), period or text_of(folder / "cpu.cfs_period_us")
        with suppress(ValueError, ZeroDivisionError):  # "max", or nothing
            if int(quota) > 0:
                found = min(found, int(quota) / int(period))
    return max(1, math.ceil(found))


def _openmp(name: str) -> Any | None:
    """A function of the OpenMP that PyTorch has loaded, or None."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # TypeError: Windows
        return None


class Forked(Protocol):
    """What has something to put right in a child process."""

    def after_fork(self) -> None: ...


_forked: weakref.WeakSet[Forked] = weakref.WeakSet()


def put_right_after_fork(owner: Forked) -> None:
    """Call ``owner.after_fork()`` in every child made by fork while it lives.

    A child has the memory of all threads and only the one that forked. What another thread was changing stays half
    changed in the child, and what it had locked stays locked.
    """
    _forked.add(owner)


class Lock:
    """A re-entrant lock that is free in a child process, unless the thread that forked holds it."""

    def __init__(self) -> None:
        self._lock, self._owner, self._depth = threading.RLock(), 0, 0
        put_right_after_fork(self)

    def __enter__(self) -> Lock:
        self._lock.acquire()
        self._owner, self._depth = threading.get_ident(), self._depth + 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = 0
        self._lock.release()

    def after_fork(self) -> None:
        if self._owner != threading.get_ident():
            self._lock, self._owner, self._depth = threading.RLock(), 0, 0


def _before_fork() -> None:
    """Let the forking thread's OpenMP threads end; it starts others when it next needs them.

    The child would wait for ever for threads that it does not have, in any work of PyTorch on more than one.
    """
    with suppress(Exception):
        pause = _openmp("omp_pause_resource_all")
        if pause is not None:
            pause(_SOFT)


def _in_child() -> None:
    for owner in sorted(_forked, key=lambda owner: not isinstance(owner, Lock)):  # what others put right takes locks
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
