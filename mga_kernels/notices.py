"""Warnings that name the line of the caller of this package."""

from __future__ import annotations

import sys
import warnings

OURS = ("mga_kernels", "torch", "contextlib")  # the latter two hold what decorates our functions


def warn(message: str) -> None:
    """A UserWarning at the innermost line that is not of this package, however deep in it the cause is."""
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").split(".")[0] in OURS and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
