"""PyAV where it is installed, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..errors import InputError, reason_of


def pyav() -> ModuleType:
    """The module; InputError without it."""
    try:
        import av
    except ImportError:
        raise InputError("videos need PyAV: pip install av, or this package with its extra video") from None
    return av


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """What FFmpeg raises within the block is an InputError that begins with ``what``."""
    av = pyav()
    try:
        yield
    except av.error.FFmpegError as problem:
        raise InputError(f"{what} ({reason_of(problem)})") from problem
