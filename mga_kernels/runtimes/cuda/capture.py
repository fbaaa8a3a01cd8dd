"""Capturing work in a CUDA graph, and what may no longer be done in a process in which that has failed.

PyTorch's allocator may go on as if a capture were under way after one that failed (before 2.12 after every one that
does not end, and in later versions after some): another capture, or giving unused memory back, then ends in an error
from within. So a process in which a capture has failed makes no other, and keeps its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .transfers import Lane

if TYPE_CHECKING:
    from torch.cuda.graphs import _POOL_HANDLE as Pool

_failed: list[str] = []  # why, of the captures that did


class CannotCapture(Exception):
    """The reason in one line."""


def may_capture() -> bool:
    return not _failed


def give_back_unused_memory() -> None:
    """To the GPU, for others; not after a capture has failed."""
    if may_capture():
        torch.cuda.empty_cache()


def capture(work: Callable[[], None], lane: Lane, pool: Pool | None) -> Callable[[], None]:
    """What replays ``work``, captured in ``lane`` with its memory in ``pool``.

    Raises CannotCapture where it meets what a graph cannot hold, and what ``work`` raised where that is no matter of
    capturing: too little memory above all, for which there are tiles.
    """
    if _failed:
        raise CannotCapture(_failed[0])
    graph = torch.cuda.CUDAGraph()
    raised: list[BaseException] = []

    def watched() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)  # ending the capture raises an error of its own, which would take the place of this
            raise

    # Other threads may decode into pinned memory meanwhile, which a global capture would not bear. The lane restores
    # the caller's stream also where ending the capture fails before PyTorch would.
    try:
        with lane, torch.cuda.graph(graph, pool, lane.stream, capture_error_mode="thread_local"):
            watched()
        return graph.replay
    except BaseException as error:
        failure = raised[0] if raised else error
    raised.clear()
    _failed.append((str(failure).strip() or type(failure).__name__).splitlines()[0])
    try:  # outside of the handler above, whose error holds frames, and they what fills the memory
        if isinstance(failure, RuntimeError) and not isinstance(failure, torch.OutOfMemoryError):
            raise CannotCapture(_failed[-1])
        raise failure.with_traceback(None)
    finally:
        del failure
