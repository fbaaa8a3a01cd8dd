"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import InputError


@contextmanager
def whole_file(path: str | os.PathLike[str], error: type[InputError] = InputError) -> Iterator[BinaryIO]:
    """A stream to write ``path`` through. The file appears (or is replaced) when the block ends without an exception.

    Until then the bytes are in a hidden temporary file of the same folder, which any exception, Ctrl-C included,
    removes. A folder that is missing or cannot be written to, or a full disk, raises ``error``.
    """
    path = Path(path)
    temporary = path.parent / f".mga-{secrets.token_hex(8)}.part"
    try:
        # Not tempfile: its files are readable by their owner only, and the result should follow the umask.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as problem:
        raise error(f"cannot write {path}: {_reason(path.parent, problem)}") from problem
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise error(f"cannot write {path}: {problem.strerror or problem}") from problem
    finally:
        temporary.unlink(missing_ok=True)


def _reason(folder: Path, problem: OSError) -> str:
    if not folder.exists():
        return f"the folder {folder} does not exist; create it first"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return f"the folder {folder} cannot be written to ({problem.strerror}); choose another"


def writable_folder(folder: str | os.PathLike[str], error: type[InputError] = InputError) -> bool:
    """Make ``folder`` if it is missing (True is returned then) and try writing in it; ``error`` where that fails."""
    folder = Path(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".mga-{secrets.token_hex(8)}.part"
        with probe.open("xb"):
            pass
        probe.unlink()
    except OSError as problem:
        if not made or folder.exists():
            raise error(f"cannot write into {folder}: {_reason(folder, problem)}") from problem
        raise error(f"cannot make the folder {folder} ({problem.strerror}); choose another") from problem
    return made
