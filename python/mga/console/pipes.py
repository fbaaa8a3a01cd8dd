"""An image through standard input and standard output, which then hold nothing else."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mga_kernels.errors import ImageError, InputError

from .process import Stream


def bytes_in() -> bytes:
    """All of standard input. InputError where there is none, it is a terminal or it cannot be read."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("there is no standard input; name a file instead of -")
    if sys.stdin.isatty():
        raise InputError("standard input is a terminal; send an image into the command, for example by < photo.jpg")
    try:
        data = stream.read()
    except OSError as problem:  # of a folder, or one that has been closed
        raise InputError(f"standard input cannot be read ({problem.strerror or problem})") from problem
    if not data:
        raise ImageError("standard input is empty (0 bytes)")
    return data


@contextmanager
def bytes_out() -> Iterator[io.BytesIO]:
    """What the block writes to this stream goes to standard output at its end, unless it ends by an exception.

    Meanwhile all that is printed, also by libraries in C, goes to standard error. InputError where standard output is a
    terminal or is not there; what goes wrong with it later is a ``fault`` of the Stream that it is.
    """
    out = sys.stdout
    if not isinstance(out, Stream) or not hasattr(out, "buffer"):
        raise InputError("there is no standard output; name a file instead of -")
    if out.isatty():
        raise InputError("standard output is a terminal; send the image into a file or a pipe, such as > out.png")
    out.flush()
    held = io.BytesIO()
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
