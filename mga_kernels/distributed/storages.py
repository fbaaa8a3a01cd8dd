"""Where images are read and results are written: a folder, or what pyarrow or fsspec reach by an address, as S3."""

from __future__ import annotations

import functools
import os
import posixpath
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import ImageError, InputError, reason_of
from ..images import suffixes
from ..system.files import remove_left_parts, whole_file, writable_folder

if TYPE_CHECKING:
    import pyarrow.fs
    from pyarrow.parquet import ParquetFile

_PART = ".mga-"  # what names of files begin with that are being made
_OBJECTS = ("s3", "gcs", "abfs")  # whose files appear when they are whole
_LEFT = 3600.0  # seconds after which a file that is being made is one that a killed worker left


@dataclass(frozen=True)
class Source:
    """An image: the file ``name`` in the storage at ``place``, or a row of a table of Parquet of that name.

    ``row``: (row group, number in it, column of the bytes); ``title``: what its result is called, but for the ending.
    """

    place: str
    name: str
    title: str
    row: tuple[int, int, str] | None = None


class Storage(Protocol):
    """Files below one place, by names with / between folders. What goes wrong is an ImageError."""

    def names(self) -> dict[str, int]:
        """The files, those in subfolders too, with their bytes; none where there is no such place."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """The file appears whole or not at all, and replaces another."""

    def has(self, name: str) -> bool:
        """Whether there is such a file with anything in it."""

    def clean(self) -> None:
        """Remove what killed workers left half written."""

    def probe(self) -> None:
        """Try to write there."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or one that all share."""

    root: str

    def names(self) -> dict[str, int]:
        found = {}
        for path, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(files):
                whole = os.path.join(path, name)
                if not name.startswith(_PART):
                    with suppress(OSError):  # it is gone, or a link that leads nowhere
                        found[Path(os.path.relpath(whole, self.root)).as_posix()] = os.path.getsize(whole)
        return found

    def read(self, name: str) -> bytes:
        try:
            return Path(self.root, name).read_bytes()
        except OSError as problem:
            raise ImageError(f"{name} cannot be read ({reason_of(problem)})") from problem

    def write(self, name: str, data: bytes) -> None:
        path = Path(self.root, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ImageError(f"cannot make the folder {path.parent} ({reason_of(problem)})") from problem
        with whole_file(path, ImageError) as stream:
            stream.write(data)

    def has(self, name: str) -> bool:
        try:
            return os.path.getsize(Path(self.root, name)) > 0
        except OSError:
            return False

    def clean(self) -> None:
        for path, _, _ in os.walk(self.root):
            remove_left_parts(path)

    def probe(self) -> None:
        writable_folder(self.root, ImageError)


@dataclass(frozen=True)
class Remote:
    """What is below an address such as s3://bucket/folder. Pickled as that; connections are made where it is used."""

    address: str

    def names(self) -> dict[str, int]:
        return {name: size for name, size, _ in self._files() if not posixpath.basename(name).startswith(_PART)}

    def read(self, name: str) -> bytes:
        system, root = _reached(self.address)
        try:
            with system.open_input_stream(posixpath.join(root, name)) as stream:
                return stream.read()
        except OSError as problem:
            raise ImageError(f"{name} cannot be read ({reason_of(problem)})") from problem

    def write(self, name: str, data: bytes) -> None:
        system, root = _reached(self.address)
        target = posixpath.join(root, name)
        whole = system.type_name in _OBJECTS
        path = target if whole else posixpath.join(posixpath.dirname(target), f"{_PART}{secrets.token_hex(8)}.part")
        try:
            if not whole:
                system.create_dir(posixpath.dirname(target), recursive=True)
            with system.open_output_stream(path) as stream:
                stream.write(data)
            if not whole:
                system.move(path, target)
        except OSError as problem:
            if not whole:
                with suppress(OSError):
                    system.delete_file(path)
            raise ImageError(f"cannot write {name} into {self.address} ({reason_of(problem)})") from problem

    def has(self, name: str) -> bool:
        system, root = _reached(self.address)
        try:
            found = system.get_file_info([posixpath.join(root, name)])[0]
        except OSError as problem:
            raise ImageError(f"{self.address} cannot be looked at ({reason_of(problem)})") from problem
        return found.is_file and (found.size or 0) > 0

    def clean(self) -> None:
        system, root = _reached(self.address)
        if system.type_name in _OBJECTS:
            return
        for name, _, changed in self._files():
            if posixpath.basename(name).startswith(_PART) and changed and time.time() - changed > _LEFT:
                with suppress(OSError):
                    system.delete_file(posixpath.join(root, name))

    def probe(self) -> None:
        system, root = _reached(self.address)
        name = f"{_PART}{secrets.token_hex(8)}.part"
        self.write(name, b"")
        with suppress(OSError):  # who may write may not be allowed to remove; no reader takes it for a result
            system.delete_file(posixpath.join(root, name))

    def _files(self) -> Iterator[tuple[str, int, float | None]]:
        from pyarrow.fs import FileSelector

        system, root = _reached(self.address)
        try:
            found = system.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
        except OSError as problem:
            raise ImageError(f"{self.address} cannot be listed ({reason_of(problem)})") from problem
        for one in sorted(found, key=lambda one: one.path):
            if one.is_file:
                changed = None if one.mtime is None else one.mtime.timestamp()
                yield posixpath.relpath(one.path, root), one.size or 0, changed


@functools.lru_cache(maxsize=8)
def _reached(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """(file system, path in it) of an address; InputError where there is nothing for its kind."""
    try:
        import pyarrow
        from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
    except ImportError as error:
        raise InputError(f"{address} needs pyarrow ({error}); pip install 'mga_kernels[ray]'") from error
    try:
        return FileSystem.from_uri(address)
    except pyarrow.ArrowInvalid:  # a kind that it has nothing for
        pass
    except OSError as problem:
        raise InputError(f"{address} cannot be reached ({reason_of(problem)})") from problem
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as problem:
        raise InputError(f"{address} cannot be reached ({reason_of(problem)}); is it an address?") from problem
    return PyFileSystem(FSSpecHandler(system)), path


def storage(place: str) -> Storage:
    """What is there: ``place`` is the path of a folder, or an address with :// in it."""
    if place.startswith("file://"):
        place = place.removeprefix("file://")
    return Remote(place.rstrip("/")) if "://" in place else Folder(os.path.abspath(place))


def _parted(place: str) -> tuple[str, str]:
    """Of an address the path, and what begins with a question mark: how its storage is reached."""
    path, mark, query = place.partition("?") if "://" in place else (place, "", "")
    return path.rstrip("/") if mark else path, mark + query


def inside(place: str, other: str) -> str | None:
    """What of ``other`` is below ``place``, empty where it is the same, None where it is elsewhere."""
    one, two = storage(place), storage(other)
    if isinstance(one, Folder) and isinstance(two, Folder):
        start, whole = (os.path.realpath(there.root) for there in (one, two))
    elif isinstance(one, Remote) and isinstance(two, Remote):
        start, whole = (_parted(there.address)[0] for there in (one, two))
    else:
        return None
    if start == whole:
        return ""
    start = start.rstrip("/" + os.sep)
    return Path(whole[len(start) + 1 :]).as_posix() if whole.startswith((f"{start}/", f"{start}{os.sep}")) else None


def find(places: Sequence[str], bytes_column: str = "bytes", name_column: str = "name") -> list[Source]:
    """The images in folders, with their subfolders, and the rows of tables of Parquet, .parquet by name.

    ImageError where there is none; InputError where a table lacks a column.
    """
    known, found = suffixes(), []
    for place in places:
        path, query = _parted(place)
        if path.endswith(".parquet"):
            root, _, name = path.rpartition("/") if "/" in path else (".", "", path)
            found += _rows((root or "/") + query, name, bytes_column, name_column)
            continue
        here = []
        for name in storage(place).names():
            suffix = posixpath.splitext(name)[1].lower()
            if suffix == ".parquet":
                here += _rows(place, name, bytes_column, name_column)
            elif suffix in known:
                here.append(Source(place, name, name))
        if not here:
            raise ImageError(f"there is no image in {place}, nor in folders in it")
        found += here
    return found


def _rows(place: str, name: str, bytes_column: str, name_column: str) -> list[Source]:
    file = table(place, name)
    columns = file.schema_arrow.names
    for column in (bytes_column, name_column):
        if column not in columns:
            raise InputError(f"{name} has no column {column!r}; its columns are {', '.join(columns)}")
    found = []
    for group in range(file.num_row_groups):
        names = file.read_row_group(group, [name_column]).column(0).to_pylist()
        found += [Source(place, name, str(title), (group, i, bytes_column)) for i, title in enumerate(names)]
    return found


def table(place: str, name: str) -> ParquetFile:
    """The table of Parquet of that name, as pyarrow reads it."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(f"{name} needs pyarrow ({error}); pip install 'mga_kernels[ray]'") from error
    there = storage(place)
    try:
        if isinstance(there, Folder):
            return parquet.ParquetFile(os.path.join(there.root, name))
        system, root = _reached(place.rstrip("/"))
        return parquet.ParquetFile(system.open_input_file(posixpath.join(root, name)))
    except (OSError, pyarrow.ArrowException) as problem:
        raise ImageError(f"{name} cannot be read ({reason_of(problem)})") from problem
