"""An image or a video through standard input and standard output, which then hold nothing else."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from mga_kernels.errors import ImageError, InputError, reason_of

from .process import Stream


def bytes_in() -> bytes:
    """All of standard input. InputError where there is none, it is a terminal or it cannot be read."""
    stream = check_in("an image into the command, for example by < photo.jpg")
    try:
        data = stream.read()
    except OSError as problem:  # of a folder, or one that has been closed
        raise InputError(f"standard input cannot be read ({reason_of(problem)})") from problem
    if not data:
        raise ImageError("standard input is empty (0 bytes)")
    return data


def check_in(what: str) -> BinaryIO:
    """Standard input; InputError where there is none, or it is a terminal and not ``what``."""
    stream: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("there is no standard input; name a file instead of -")
    if sys.stdin.isatty():
        raise InputError(f"standard input is a terminal; send {what}")
    return stream


def _check_out(what: str) -> Stream:
    out = sys.stdout
    if not isinstance(out, Stream) or not hasattr(out, "buffer"):
        raise InputError("there is no standard output; name a file instead of -")
    if out.isatty():
        raise InputError(f"standard output is a terminal; send {what}")
    out.flush()
    return out


class ReaderLeft(Exception):
    """What is written is not read any more; the Stream has kept why."""


@contextmanager
def frames_out() -> Iterator[Callable[[bytes], None]]:
    """What the function is given goes to standard output at once, and all that is printed to standard error.

    Once that fails, the block ends, without an exception: there is nobody to go on for.
    """
    out = _check_out("the video into a pipe, such as | ffmpeg -i - out.mkv")

    def write(data: bytes) -> None:
        out.write_bytes(data)
        if out.fault is not None:
            raise ReaderLeft

    sys.stdout = sys.stderr
    try:
        with suppress(ReaderLeft):
            yield write
    finally:
        sys.stdout = out  # type: ignore[assignment]


@contextmanager
def bytes_out() -> Iterator[io.BytesIO]:
    """What the block writes to this stream goes to standard output at its end, unless it ends by an exception.

    Meanwhile all that is printed, also by libraries in C, goes to standard error. InputError where standard output is a
    terminal or is not there; what goes wrong with it later is a ``fault`` of the Stream that it is.
    """
    out, held = _check_out("the image into a file or a pipe, such as > out.png"), io.BytesIO()
    sys.stdout = sys.stderr
    try:
        with _file_of(out, sys.stderr):
            yield held
    finally:
        sys.stdout = out  # type: ignore[assignment]
    out.write_bytes(held.getbuffer())


@contextmanager
def _file_of(stream: object, other: object) -> Iterator[None]:
    """Within the block the file of ``stream`` is that of ``other``, where both have one."""
    number, kept = None, None
    with suppress(OSError, ValueError, AttributeError):  # of streams in memory, and of those that are not there
        number, instead = stream.fileno(), other.fileno()  # type: ignore[attr-defined]
        kept = os.dup(number)
        os.dup2(instead, number)
    try:
        yield
    finally:
        if number is not None and kept is not None:
            os.dup2(kept, number)
            os.close(kept)
