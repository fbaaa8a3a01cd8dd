"""Image files opened by Pillow, without its limits, and what to do where it fails with one."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from ..errors import ImageError, reason_of
from ..system.texts import HEAD, stand_in
from ..system.threads import Lock
from . import jpeg, plugins, png
from .boxes import avif_without_exif
from .headers import what_it_is
from .info import Info

# Formats of single pictures. Others that Pillow opens run outside programs, hold vectors, layers, films or readings of
# instruments, or are known to it by name only.
READABLE = tuple("JPEG PNG WEBP TIFF BMP DIB GIF PPM JPEG2000 AVIF TGA QOI PCX SGI SUN DDS ICO HEIF JXL".split())
_VIDEOS = (b"iso", b"mp4", b"qt ", b"M4V", b"avc", b"das")  # brands of MPEG-4 that are no images
_lock = Lock()


class Damaged(ImageError):
    """Pillow failed with a file of this ``kind``."""

    def __init__(self, message: str, kind: str | None):
        super().__init__(message)
        self.kind = kind


def suffixes() -> frozenset[str]:
    """What the names of files that ``read_image`` can read end with, in lower case with the dot."""
    Image.init()
    kinds = {*READABLE, "MPO"}  # which Pillow reads as JPEG
    named = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in kinds)
    return named | frozenset(plugins.SUFFIXES)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, or an ImageError that says why not."""
    try:
        status = path.stat()
        fault = _no_image(status)
        stream = path.open("rb") if fault is None else None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the name
        raise ImageError(f"{path} cannot be opened ({reason_of(problem)})") from problem
    if stream is None:
        raise ImageError(f"{path} is {fault}")
    with stream:
        yield stream


def _no_image(status: os.stat_result) -> str | None:
    """What a file is that needs not be opened to know that it is no image."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder, not an image"
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        return "not a regular file"
    return None if status.st_size else "empty (0 bytes)"


def _accepted(accept: Callable[[bytes], bool | str] | None, prefix: bytes) -> bool:
    """Whether a format of Pillow takes a file that begins so for one of its own."""
    try:
        return accept is None or accept(prefix) is True
    except (IndexError, struct.error):  # it looks further than the file goes
        return False


def open_image(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    """The file as a Pillow image that is not decoded yet; ``name`` is what errors call it.

    Not by ``Image.open``: its limit on pixels holds for the whole process and is below what cameras make. Memory is
    checked instead, in ``from_pillow``.
    """
    Image.preinit()  # JPEG, PNG and a few more; to load all formats takes longer than to read a small file
    stream.seek(0)
    prefix = stream.read(16)
    failed: Damaged | None = None
    plugged = plugins.kind_of(stream)
    if plugged is not None:
        plugins.require(plugged, f"{name} cannot be read")
    for kind in READABLE if plugged is None else (plugged,):
        if kind not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is None or not _accepted(accept, prefix):
            continue
        try:
            stream.seek(0)
            try:
                return factory(stream, "")
            except Image.DecompressionBombError:  # some formats look at the limit by themselves
                stream.seek(0)
                with limit_off():
                    return factory(stream, "")
        except Exception as problem:  # a damaged file raises whatever its decoder trips over
            what = what_it_is(stream, kind)
            if what is not None:
                raise ImageError(f"{name} {what}") from problem
            if accept is not None and failed is None:  # without, it takes any file for one of its own
                failed = Damaged(f"{name} is damaged and cannot be read ({reason_of(problem)})", kind)
                failed.__cause__ = problem
    if failed is not None:
        raise failed
    if prefix.startswith(b"\x1a\x45\xdf\xa3") or (prefix[4:8] == b"ftyp" and prefix[8:11] in _VIDEOS):
        raise ImageError(f"{name} is a video and not an image; `mga video` takes videos")
    stream.seek(0)
    if (what := stand_in(stream.read(HEAD))) is not None:
        raise ImageError(f"{name} is {what}")
    raise ImageError(f"{name} is not an image of a kind that can be read here ({', '.join(READABLE)})")


@contextmanager
def limit_off() -> Iterator[None]:
    """Without Pillow's limit on pixels, in the whole process; only for images that are larger."""
    with _lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def mended(stream: BinaryIO, kind: str | None, notes: list[str]) -> tuple[BinaryIO, Info] | None:
    """The file without the metadata that Pillow fails with, and those of them that can be read all the same."""
    if kind == "PNG":
        return png.mended(stream, notes)
    if kind in ("JPEG", "MPO"):
        return jpeg.mended(stream, notes)
    if kind == "AVIF" and (data := avif_without_exif(stream)) is not None:
        notes.append("its EXIF data is damaged and was left out")
        return io.BytesIO(data), {}
    return None


@contextmanager
def file_of(image: Image.Image) -> Iterator[BinaryIO | None]:
    """The file that a Pillow image was opened from elsewhere, None where it cannot be read any more."""
    kind = "JPEG" if image.format == "MPO" else image.format
    accept = Image.OPEN.get(kind or "", (None, None))[1]
    kept = [getattr(image, attribute, None) for attribute in ("fp", "_fp")]  # by one or the other, until it is decoded
    held = next((stream for stream in kept if _begins(stream, accept)), None)
    if held is not None:
        yield held
        return
    path = getattr(image, "filename", None) or getattr(kept[1], "name", None)
    try:
        stream = open(path, "rb") if isinstance(path, (str, bytes, os.PathLike)) and path else None
    except OSError:
        stream = None
    with stream or nullcontext():
        yield stream if _begins(stream, accept) else None


def _begins(stream: Any, accept: Callable[[bytes], bool | str] | None) -> bool:
    """Whether a stream can be read and begins as ``accept`` of Pillow wants it; its position is kept."""
    try:
        position = stream.tell()
        stream.seek(0)
        prefix = stream.read(16)
        stream.seek(position)
    except (AttributeError, OSError, ValueError):  # nothing that can be read, or closed
        return False
    return bool(prefix) and (accept is None or accept(prefix) is True)
