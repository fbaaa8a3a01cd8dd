"""Writing a photograph: whole or not at all, and never more quietly lossy than its format."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import ImageError, InputError
from ..files import Identity, identities, whole_file
from .metadata import iptc_segment, png_colour_chunks, tiff_tags
from .photo import Photo, to_image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
FORMATS |= {".jfif": "JPEG", ".jpe": "JPEG"}
# The longest side each format (JPEG: libjpeg) can hold, in pixels.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_JPEG_SEGMENT = 65533


def check_output(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] | frozenset[Identity] = (),
    size: tuple[int, int] | None = None,
    alpha: bool = False,
) -> str:
    """Pillow's name of the format that ``path`` asks for; raises ImageError where saving there would fail.

    ``inputs`` are files that must not be the output; for many outputs give the set that ``files.identities`` makes of
    them once. ``size`` (width, height) in pixels and ``alpha`` describe the image where they are known already.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(FORMATS)
        raise ImageError(f"cannot write {path}: the extension {path.suffix or '(none)'!s} is none of {known}")
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except (OSError, ValueError) as problem:  # a name too long, a folder that may not be looked into, a zero byte
        raise ImageError(f"cannot write {path}: {getattr(problem, 'strerror', None) or problem}") from problem
    if found is not None:
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"cannot write {path}: it is {'a folder' if stat.S_ISDIR(found.st_mode) else 'no file'}")
        taken = inputs if isinstance(inputs, frozenset) else identities(inputs)
        if (found.st_dev, found.st_ino) in taken:
            raise ImageError(f"cannot write {path}: it is the input itself; choose another name or folder")
        if not overwrite:
            raise ImageError(f"cannot write {path}: it exists already; choose another name or allow overwriting")
    if size is not None and max(size) > _LONGEST.get(kind, max(size)):
        limit = f"{kind} holds at most {_LONGEST[kind]:,} pixels a side"
        raise ImageError(f"cannot write {path}: the result is {size[0]}x{size[1]} and {limit}; write PNG or TIFF")
    if alpha and kind == "JPEG":
        raise ImageError(f"cannot write {path}: JPEG holds no transparency and the image has it; write PNG or WebP")
    return kind


def save_image(image: Image.Image | Photo, path: str | os.PathLike[str], overwrite: bool = False) -> list[str]:
    """Write an 8-bit image (L, LA, RGB, RGBA) in the format of the extension; returns notes on what was not kept.

    PNG, TIFF (uncompressed) and WebP are written without loss, JPEG at quality 95 without chroma subsampling. ICC
    profile, EXIF, XMP, IPTC, resolution and comments of ``image.info`` go where the format can hold them. The file
    appears whole or not at all; ImageError where it cannot be written or would replace a file without ``overwrite``.
    """
    image = to_image(image) if isinstance(image, Photo) else image
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"save_image: expected mode L, LA, RGB or RGBA, got {image.mode}; convert it first")
    path = Path(path)
    seen_through = image.mode in ("LA", "RGBA") and bool((np.asarray(image.getchannel("A")) < 255).any())
    kind = check_output(path, overwrite, size=image.size, alpha=seen_through)
    notes: list[str] = []
    info = {str(key): value for key, value in image.info.items() if value is not None}
    options = _OPTIONS[kind](info, image, notes)
    if kind == "JPEG" and image.mode in ("LA", "RGBA"):  # opaque everywhere, so there is nothing to lose
        image = image.convert(image.mode[:-1])
    plain = image.copy() if image.info else image
    plain.info = {}  # so that Pillow writes the options below and nothing on its own
    with whole_file(path, ImageError) as stream:
        try:
            plain.save(stream, kind, **options)
        except (ValueError, RuntimeError, SystemError, OSError) as problem:  # OSError: an encoder's, not the disk's
            raise ImageError(f"cannot write {path}: {kind} refused the image ({problem})") from problem
    return notes


def _common(info: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: info[key] for key in keys if key in info}


def _png(info: dict[str, Any], image: Image.Image, notes: list[str]) -> dict[str, Any]:
    chunks = PngInfo()
    for kind, data in png_colour_chunks(info):
        chunks.add(kind, data)
    if "xmp" in info:
        chunks.add_itxt("XML:com.adobe.xmp", info["xmp"].decode("utf-8", "replace"))
    for key, value in info.get("text", {}).items():
        chunks.add_itxt(key, value)
    if "comment" in info and "Comment" not in info.get("text", {}):
        comment = info["comment"]
        chunks.add_itxt("Comment", comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment))
    _note_lost(info, notes, "PNG", iptc="IPTC captions")
    return {"pnginfo": chunks, "compress_level": 6, **_common(info, "icc_profile", "exif", "dpi")}


def _jpeg(info: dict[str, Any], image: Image.Image, notes: list[str]) -> dict[str, Any]:
    kept = _common(info, "icc_profile", "exif", "dpi", "comment", "xmp")
    for key, name in (("exif", "EXIF data"), ("xmp", "XMP data"), ("comment", "comment")):
        if len(kept.get(key, b"")) + (29 if key == "xmp" else 0) > _JPEG_SEGMENT:
            del kept[key]
            notes.append(f"its {name} is too long for JPEG and was left out")
    segment = iptc_segment(info["iptc"]) if "iptc" in info else b""
    if "iptc" in info and not segment:
        notes.append("its IPTC captions are too long for JPEG and were left out")
    _note_lost(info, notes, "JPEG", text="text chunks")
    _note_gamma(info, notes, "JPEG")
    return {"quality": 95, "subsampling": 0, "extra": segment, **kept}


def _webp(info: dict[str, Any], image: Image.Image, notes: list[str]) -> dict[str, Any]:
    # Lossy WebP halves the resolution of colour whatever the quality.
    _note_lost(info, notes, "WebP", iptc="IPTC captions", text="text chunks", comment="comment", dpi="resolution (dpi)")
    _note_gamma(info, notes, "WebP")
    return {"lossless": True, "quality": 50, **_common(info, "icc_profile", "exif", "xmp")}


def _tiff(info: dict[str, Any], image: Image.Image, notes: list[str]) -> dict[str, Any]:
    _note_lost(info, notes, "TIFF", text="text chunks", comment="comment")
    _note_gamma(info, notes, "TIFF")
    large = image.width * image.height * len(image.getbands()) > 3 << 30  # offsets of plain TIFF end at 4 GiB
    kept = _common(info, "icc_profile", "dpi")
    # Uncompressed, because libtiff, which Pillow compresses with, cannot write the EXIF part.
    return {"compression": "raw", "exif": tiff_tags(info), "big_tiff": large, **kept}


_OPTIONS = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp, "TIFF": _tiff}


def _note_lost(info: dict[str, Any], notes: list[str], kind: str, **names: str) -> None:
    lost = [name for key, name in names.items() if info.get(key)]
    if lost:
        notes.append(f"{kind} cannot hold its {' and '.join(lost)}")


def _note_gamma(info: dict[str, Any], notes: list[str], kind: str) -> None:
    gamma = info.get("gamma")
    if gamma and "icc_profile" not in info and "srgb" not in info and abs(gamma * 2.2 - 1) > 0.02:
        notes.append(f"{kind} cannot hold its gamma of {gamma:.4g}, so it may look lighter or darker")
