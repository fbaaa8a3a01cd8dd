"""Warnings that name the line of the caller of this package, and those that nobody is to see."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OURS = ("mga_kernels", "torch", "contextlib")  # the latter two hold what decorates our functions

_quiet = threading.local()


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the innermost line that is not of this package, however deep in it the cause is."""
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").split(".")[0] in OURS and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it warnings of this thread are not shown.

    ``warnings.catch_warnings`` is for the whole process: what other threads say meanwhile would be lost, and filters
    that they set.
    """
    warnings.simplefilter("ignore", _OfThisThread)  # in front of all others; it stays, and matches nothing outside
    before = getattr(_quiet, "yes", False)
    _quiet.yes = True
    try:
        yield
    finally:
        _quiet.yes = before


class _AnyWhereQuiet(type):
    """Makes every warning one of a class, in threads that are to be quiet."""

    def __subclasscheck__(cls, other: Any) -> bool:
        return getattr(_quiet, "yes", False)


class _OfThisThread(Warning, metaclass=_AnyWhereQuiet):
    """The class of a filter."""
