"""Lists of files, one a line, or with a zero after each as `find -print0` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.system.files import whole_file

MARK = f"{os.sep}.{os.sep}"  # what stands behind it is kept below the folder of results, as rsync --relative does it


def read_list(file: Path) -> list[tuple[Path, Path]]:
    """(path, the part of it behind the mark, empty where there is none) of each entry. InputError names the file."""
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise InputError(f"the list {file} cannot be read ({problem.strerror})") from problem
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    entries = []
    for line in map(os.fsdecode, filter(None, lines)):
        behind = Path(line.rpartition(MARK)[2] if MARK in line else "")
        if behind.is_absolute() or ".." in behind.parts:
            raise InputError(f"the list {file} holds {line}, whose result would not be below the folder of results")
        entries.append((Path(line), behind))
    return entries


def write_list(file: Path, entries: Iterable[tuple[Path, Path]]) -> None:
    """What ``read_list`` reads. The file appears whole or not at all."""
    lines = [os.fsencode(_line(path, behind)) for path, behind in entries]
    end = b"\0" if any(b"\n" in line or b"\r" in line for line in lines) else b"\n"
    with whole_file(file) as stream:
        stream.write(b"".join(line + end for line in lines))


def _line(path: Path, behind: Path) -> str:
    return f"{path.parents[len(behind.parts) - 1]}{MARK}{behind}" if behind.parts else str(path)
