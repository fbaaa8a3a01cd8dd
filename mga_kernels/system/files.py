"""Writing a file so that it is there whole or not at all, and knowing files by what they are, not by name."""

from __future__ import annotations

import atexit
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError, reason_of
from .marks import marked

Identity = tuple[int, int]  # device and number of a file, which are the same under all of its names

_PART = re.compile(r"\.mga-[0-9a-f]{16}\.part")

_temporary: dict[Path, int] = {}  # files that are being made, and the process that makes them


@contextmanager
def whole_file(path: str | os.PathLike[str], error: type[InputError] = InputError) -> Iterator[BinaryIO]:
    """A stream to write ``path`` through. The file appears (or is replaced) when the block ends without an exception.

    Until then the bytes are in a hidden temporary file of the same folder, which any exception, Ctrl-C included,
    removes. Where ``path`` is a link, the file that it leads to is replaced, and the link stays. A folder that is
    missing or cannot be written to, a full disk, or a ``path`` that is there and no regular file raise ``error``, also
    where the block makes another exception of it; every other exception of the block stays what it is.
    """
    path = Path(path)
    target = _regular(path, error)
    with _temporary_name(target.parent) as temporary, ExitStack() as held:
        file = _begun(path, temporary, held, error)
        try:
            stream = io.BufferedRandom(file)
            yield stream
            stream.flush()
            file.sync()
            file.close()
        except Exception:
            if file.fault is None:
                raise
        finally:
            with suppress(OSError):
                file.close()  # not the stream, which would try once more to write what could not be written
        if file.fault is not None:
            raise error(f"cannot write {path}: {reason_of(file.fault)}") from file.fault
        try:
            os.replace(temporary, target)
        except OSError as problem:
            raise error(f"cannot write {path}: {reason_of(problem)}") from problem


def check_file(path: str | os.PathLike[str]) -> None:
    """InputError where ``whole_file`` could not write ``path``, before the work whose result it is to hold."""
    path = Path(path)
    with _temporary_name(_regular(path, InputError).parent) as temporary, ExitStack() as held:
        _begun(path, temporary, held, InputError).close()


def _begun(path: Path, temporary: Path, held: ExitStack, error: type[InputError]) -> _File:
    """The file ``temporary``, of which ``path`` is to be made, marked while ``held`` is."""
    try:
        return held.enter_context(_made(temporary))
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the name
        raise error(f"cannot write {path}: {_reason(temporary.parent, problem)}") from problem


class _File(io.FileIO):
    """A file for writing, and the first ``fault`` of it."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        return self._remembering(super().write, data)

    def truncate(self, size: int | None = None) -> int:
        return self._remembering(super().truncate, size)

    def sync(self) -> None:
        self._remembering(os.fsync, super().fileno())

    def fileno(self) -> int:
        # Encoders in C would write to it themselves, and what goes wrong there is lost.
        raise io.UnsupportedOperation("files that appear whole or not at all are written by write()")

    def close(self) -> None:
        self._remembering(super().close)  # a network drive may only now say that it is full

    def _remembering(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError as problem:
            self.fault = self.fault or problem
            raise


def _regular(path: Path, error: type[InputError]) -> Path:
    """The file that ``path`` means, with links followed; ``error`` where it is there and cannot be replaced."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        mode = stat.S_IFREG  # what is wrong, if anything, opening it will tell
    except (OSError, ValueError) as problem:
        raise error(f"cannot write {path}: {reason_of(problem)}") from problem
    if not stat.S_ISREG(mode):  # replacing a device such as /dev/null, as root may, would break the machine
        raise error(f"cannot write {path}: it is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


@contextmanager
def _temporary_name(folder: Path) -> Iterator[Path]:
    """A name for a hidden file in ``folder``, which is gone after the block, whatever happens."""
    path = folder / f".mga-{secrets.token_hex(8)}.part"
    _temporary[path] = os.getpid()
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        del _temporary[path]


@contextmanager
def _made(path: Path) -> Iterator[_File]:
    """A new file, marked as one that is being made until the block ends, also when it is closed before."""
    with ExitStack() as mark:
        # Another process may look for what was left between the file's making and its marking, and remove it. It does
        # so with the mark in its hand: once the mark is ours, the file is there for good, or has to be made again.
        while True:
            # Not tempfile: its files are readable by their owner only, and the result should follow the umask.
            file = _File(path, "x+")
            copy = os.dup(io.FileIO.fileno(file))
            mark.callback(os.close, copy)
            marked(copy, wait=True)  # where there are no such marks, nothing is removed by them either
            if path.exists():
                break
            file.close()
        yield file


def remove_left_parts(folder: str | os.PathLike[str]) -> int:
    """Remove temporary files that processes which were killed have left in ``folder``; returns how many.

    Files of processes that are at work carry a mark of theirs, in the system, and stay.
    """
    removed, parts = 0, []
    with suppress(OSError):
        parts = [entry.path for entry in os.scandir(folder) if _PART.fullmatch(entry.name)]
    for path in parts:
        with suppress(OSError), open(path, "rb") as file:
            if marked(file.fileno()) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                os.unlink(path)
                removed += 1
    return removed


@atexit.register
def _remove_what_is_left() -> None:
    """For a second signal, which can break off the cleaning up that the first one began."""
    for path, process in list(_temporary.items()):
        if process == os.getpid():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _reason(folder: Path, problem: Exception) -> str:
    if not os.path.exists(folder):
        return f"the folder {folder} does not exist; create it first"
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    return f"the folder {folder} cannot be written to ({reason_of(problem)}); choose another"


def writable_folder(folder: str | os.PathLike[str], error: type[InputError] = InputError) -> bool:
    """Make ``folder`` if it is missing (True is returned then) and try writing in it; ``error`` where that fails."""
    folder = Path(folder)
    made = not os.path.exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary_name(folder) as probe, probe.open("xb"):
            pass
    except (OSError, ValueError) as problem:
        if not made or os.path.exists(folder):
            raise error(f"cannot write into {folder}: {_reason(folder, problem)}") from problem
        raise error(f"cannot make the folder {folder} ({reason_of(problem)}); choose another") from problem
    return made


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """Which file that is, links being followed; None where there is none, or none that can be reached."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def identities(paths: Iterable[str | os.PathLike[str]]) -> frozenset[Identity]:
    """Which files these are: ``identity(path) in identities(paths)`` asks once for each file, not for each pair."""
    return frozenset(filter(None, map(identity, paths)))


def are_one_name(folder: Path, one: str, other: str) -> bool:
    """Whether two names mean the same file in ``folder``, as A.png and a.png do on many disks; found out by trying."""
    with _temporary_name(folder) as trial:
        try:
            trial.mkdir()
            (trial / one).touch()
            return (trial / other).exists()
        except (OSError, ValueError):
            return False  # names that no file can have are one for nobody
        finally:
            with suppress(OSError):
                (trial / one).unlink(missing_ok=True)
                trial.rmdir()
