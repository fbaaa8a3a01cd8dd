"""Writing a photograph: whole or not at all, and never more quietly lossy than its format."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..errors import ImageError, InputError, reason_of
from ..system.files import Identity, identities, whole_file
from . import plugins
from .colour import in_srgb
from .film import Film, check_holds, in_palette, write_film
from .formats import REFUSALS, metadata_options
from .info import Options
from .levels import KINDS, missing, write
from .metadata import known
from .photo import Photo, to_image
from .png import COMPRESSION
from .result import save_tiff

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
FORMATS |= {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF"} | plugins.SUFFIXES
FORMATS |= {".ppm": "PPM", ".pnm": "PPM", ".gif": "GIF"}
KEPT = frozenset({"PNG", "JPEG", "WEBP", "TIFF"})  # what results are where nothing else is asked for and inputs are it
LOSSY = frozenset({"JPEG", "WEBP", "AVIF", "HEIF", "JXL"})  # those that have a quality
_OPAQUE = frozenset({"JPEG", "PPM"})  # those without transparency
# The longest side each format (JPEG: libjpeg) can hold, in pixels.
_LONGEST = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65536, "GIF": 65535}
_ENCODING: dict[str, Options] = {
    "PNG": {"compress_level": COMPRESSION},
    "JPEG": {"quality": 95, "subsampling": 0},
    # Lossy WebP halves the resolution of colour whatever the quality; colours below alpha 0 stay only if it is exact.
    "WEBP": {"lossless": True, "quality": 50, "exact": True},
    "TIFF": {"compression": "raw"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "HEIF": {"quality": 90, "chroma": 444},
    "JXL": {"lossless": True, "effort": 3, "use_container": True},
    "PPM": {},
    "GIF": {},
}


@dataclass(frozen=True)
class AtMost:
    """A quality: the usual one where the file then has no more than so many ``bytes``, or else the best with which."""

    bytes: int


Quality = int | AtMost | None


def result_suffix(suffix: str) -> str:
    """That of a result of an image whose name ends so, where no format is asked for."""
    return suffix if FORMATS.get(suffix.lower()) in KEPT else ".png"


def check_output(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] | frozenset[Identity] = (),
    size: tuple[int, int] | None = None,
    alpha: bool = False,
    quality: Quality = None,
    deep: bool = False,
) -> str:
    """Pillow's name of the format that ``path`` asks for; raises ImageError where saving there would fail.

    ``inputs`` are files that must not be the output; for many outputs give the set that ``files.identities`` makes of
    them once. ``size`` (width, height) in pixels and ``alpha`` describe the image where they are known already,
    ``deep`` that it has more than 8 bits a channel; ``quality`` is as in ``save_image``.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        names = ", ".join(FORMATS)
        raise ImageError(f"cannot write {path}: the extension {path.suffix or '(none)'!s} is none of {names}")
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except (OSError, ValueError) as problem:  # a name too long, a folder that may not be looked into, a zero byte
        raise ImageError(f"cannot write {path}: {reason_of(problem)}") from problem
    if found is not None:
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"cannot write {path}: it is {'a folder' if stat.S_ISDIR(found.st_mode) else 'no file'}")
        taken = inputs if isinstance(inputs, frozenset) else identities(inputs)
        if (found.st_dev, found.st_ino) in taken:
            raise ImageError(f"cannot write {path}: it is the input itself; choose another name or folder")
        if not overwrite:
            raise ImageError(f"cannot write {path}: it exists already; choose another name or allow overwriting")
    check_format(kind, str(path), size, alpha, quality, deep)
    return kind


def check_format(
    kind: str,
    name: str,
    size: tuple[int, int] | None = None,
    alpha: bool = False,
    quality: Quality = None,
    deep: bool = False,
) -> None:
    """Raises ImageError where a file of this ``kind`` cannot hold the image; ``name`` is what it calls the file."""
    if deep and kind in KINDS and (needed := missing(kind)):
        raise ImageError(f"cannot write {name} with more than 8 bits a channel: {needed}")
    if kind in plugins.PLUGINS:
        plugins.require(kind, f"cannot write {name}")
    if quality is not None and kind not in LOSSY:
        remedy = f"leave the quality out or choose one of {', '.join(sorted(LOSSY))}"
        raise ImageError(f"cannot write {name}: {kind} is without loss and has no quality; {remedy}")
    if isinstance(quality, int) and not 1 <= quality <= 100:
        raise ImageError(f"cannot write {name}: a quality is a whole number from 1 to 100, got {quality}")
    if size is not None and max(size) > _LONGEST.get(kind, max(size)):
        limit = f"{kind} holds at most {_LONGEST[kind]:,} pixels a side"
        raise ImageError(f"cannot write {name}: the result is {size[0]}x{size[1]} and {limit}; write PNG or TIFF")
    if alpha and kind in _OPAQUE:
        raise ImageError(f"cannot write {name}: {kind} holds no transparency and the image has it; write PNG or WebP")


def save_image(
    image: Image.Image | Photo, path: str | os.PathLike[str], overwrite: bool = False, quality: Quality = None
) -> list[str]:
    """Write a photograph, or an image (L, LA, RGB, RGBA), in the format of the extension; returns what was not kept.

    PNG, TIFF (uncompressed), WebP and JPEG XL are written without loss, JPEG at quality 95, AVIF and HEIF at 90;
    ``quality``, 1 to 100 or ``AtMost`` some bytes, is another one of those that have one. Only lossy WebP halves the
    resolution of colours. A photograph of 16 bits a channel keeps them in PNG, TIFF and PPM, and becomes one of 8
    elsewhere, with a note. ICC profile, EXIF, XMP, IPTC, resolution and comments of ``image.info`` go where the format
    can hold them. The file appears whole or not at all; ImageError where it cannot be written or would replace a file
    without ``overwrite``.
    """
    path = Path(path)
    picture = _picture(image)
    kind = check_output(path, overwrite, (), picture.size, _seen_through(picture), quality, _deep(picture))
    with whole_file(path, ImageError) as stream:
        return _as_asked(_writer(picture, kind, str(path)), kind, stream, str(path), quality)


def encode_image(
    image: Image.Image | Photo, kind: str, stream: BinaryIO, name: str, quality: Quality = None
) -> list[str]:
    """``save_image`` into a stream that can be read and sought in, as a file of ``kind``, a value of FORMATS.

    ``name`` is what errors call the file. What an exception leaves in the stream is no image.
    """
    picture = _picture(image)
    check_format(kind, name, picture.size, _seen_through(picture), quality, _deep(picture))
    return _as_asked(_writer(picture, kind, name), kind, stream, name, quality)


def _writer(picture: Image.Image | Photo, kind: str, name: str) -> Callable[[BinaryIO, int | None], list[str]]:
    """What ``_as_asked`` writes with; all that quality changes nothing in is done once."""
    if isinstance(picture, Photo) and not picture.deep and kind != "PNG":
        picture = to_image(picture)
    return lambda out, quality: _write(picture, kind, out, name, quality)


def _as_asked(
    write: Callable[[BinaryIO, int | None], list[str]], kind: str, stream: BinaryIO, name: str, quality: Quality
) -> list[str]:
    """``write(stream, quality)``, or with the quality that leads to no more than the bytes that are asked for."""
    if not isinstance(quality, AtMost):
        return write(stream, quality)
    found: tuple[io.BytesIO, list[str]] | None = None
    sizes: dict[int | None, int] = {}

    def fits(one: int | None) -> bool:
        nonlocal found
        encoded = io.BytesIO()
        notes = write(encoded, one)
        sizes[one] = encoded.getbuffer().nbytes
        if sizes[one] <= quality.bytes:
            found = encoded, notes
        return sizes[one] <= quality.bytes

    chosen = None
    if not fits(None):
        chosen, above = 0, min(_ENCODING[kind].get("quality", 101), 101) if kind in ("JPEG", "AVIF", "HEIF") else 101
        while above - chosen > 1:
            middle = (chosen + above) // 2
            chosen, above = (middle, above) if fits(middle) else (chosen, middle)
    if found is None:
        least = f"{min(sizes.values()):,} bytes at quality 1, and {quality.bytes:,} were asked for"
        raise ImageError(f"cannot write {name}: it has {least}; ask for fewer pixels or another format")
    stream.write(found[0].getbuffer())
    how = "" if chosen is None else f"quality {chosen}, for "
    return [*found[1], f"{how}{found[0].getbuffer().nbytes:,} bytes of at most {quality.bytes:,}"]


def _picture(image: Image.Image | Photo) -> Image.Image | Photo:
    """What is written: a Photo, or a Pillow image of 8 bits."""
    if isinstance(image, Photo):
        return image
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"save_image: expected mode L, LA, RGB or RGBA, got {image.mode}; convert it first")
    return image


def _seen_through(image: Image.Image | Photo) -> bool:
    if isinstance(image, Photo):
        return image.see_through
    return image.mode in ("LA", "RGBA") and bool((np.asarray(image.getchannel("A")) < 255).any())


def _deep(image: Image.Image | Photo) -> bool:
    return isinstance(image, Photo) and image.deep


def _levels(photo: Photo) -> np.ndarray:
    if photo.deep or not photo.grey:
        return photo.levels()
    values = np.asarray(to_image(photo))  # of the three channels, which a network does not leave equal
    return values if photo.alpha is not None else values[:, :, None]


def _write_levels(photo: Photo, kind: str, stream: BinaryIO, name: str) -> list[str]:
    """A photograph as its values are: of more than 8 bits a channel, or as PNG."""
    notes: list[str] = []
    levels = _levels(photo)
    if kind in _OPAQUE and photo.alpha is not None:
        levels = levels[:, :, :-1]
    try:
        write(levels, kind, stream, known(photo.info), notes)
    except (*REFUSALS, OSError) as problem:
        raise ImageError(f"cannot write {name}: {kind} refused the image ({problem})") from problem
    return notes


def _write(image: Image.Image | Photo, kind: str, stream: BinaryIO, name: str, quality: int | None) -> list[str]:
    if isinstance(image, Photo) and kind in KINDS:
        return _write_levels(image, kind, stream, name)
    notes: list[str] = []
    if isinstance(image, Photo):
        notes.append(f"{kind} holds 8 bits a channel, to which its 16 were rounded; PNG and TIFF hold them")
        image = to_image(image.in_eight_bits())
    info = known(image.info)
    if kind in _OPAQUE and image.mode in ("LA", "RGBA"):  # opaque everywhere, so there is nothing to lose
        image = image.convert(image.mode[:-1])
    plain = image.copy() if image.info else image
    plain.info = {}  # so that Pillow writes the options below and nothing on its own
    if kind == "JXL":
        plain, info = in_srgb(plain, info, notes)
    if kind == "GIF" and plain.mode != "L":
        plain = in_palette(plain)
        notes.append("GIF holds 256 colours, which were chosen for it")
    options = _encoding(kind, quality) | metadata_options(kind, plain, info, notes)
    try:
        if kind == "TIFF":
            save_tiff(plain, stream, info, notes, **options)
        else:
            Image.Image.save(plain, stream, kind, **options)
    except (*REFUSALS, OSError) as problem:  # OSError: an encoder's, not the disk's
        raise ImageError(f"cannot write {name}: {kind} refused the image ({problem})") from problem
    return notes


def save_film(
    film: Film,
    frames: Sequence[tuple[Photo, float]],
    path: str | os.PathLike[str],
    overwrite: bool = False,
    quality: Quality = None,
) -> list[str]:
    """``save_image`` for ``frames`` (each a photograph and its milliseconds) that were made of those of ``film``."""
    path = Path(path)
    kind = check_output(path, overwrite, quality=quality)
    with whole_file(path, ImageError) as stream:
        return encode_film(film, frames, kind, stream, str(path), quality)


def encode_film(
    film: Film,
    frames: Sequence[tuple[Photo, float]],
    kind: str,
    stream: BinaryIO,
    name: str,
    quality: Quality = None,
) -> list[str]:
    """``encode_image`` for the frames of a film."""
    check_holds(film, kind, name)
    check_format(kind, name, quality=quality)

    def encode(out: BinaryIO, one: int | None) -> list[str]:
        return write_film(film, frames, kind, out, name, _encoding(kind, one))

    return _as_asked(encode, kind, stream, name, quality)


def _encoding(kind: str, quality: int | None) -> Options:
    if quality is None:
        return _ENCODING[kind]
    if kind == "JXL":  # of which 100 is without loss
        return _ENCODING[kind] | ({} if quality == 100 else {"quality": quality, "lossless": False, "effort": 7})
    return _ENCODING[kind] | {"quality": quality} | ({"lossless": False} if kind == "WEBP" else {})
