"""Photographs of more than 8 bits a channel: which files have them, which of those are refused, and the others read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..errors import ImageError
from ..system.memory import require_memory
from .exif import ORIENTATION, block_of
from .headers import TO_EIGHT, bits_per_sample, what_it_is, whole_numbers
from .ifd import Damaged, Tags, read_tags
from .info import Info
from .jxl import read_header
from .levels import (
    KINDS,
    damaged,
    is_grey_or_rgb,
    missing,
    read_png,
    read_ppm,
    read_tiff,
    spread,
    tiff_bits,
    tiff_info,
)
from .metadata import pillows_orientation_of, read_metadata, stated_in_file
from .photo import Photo, bleed

EXTRACT = "make files of them (for example `magick IN -coalesce OUT-%03d.png`) and upscale those, as a folder"
_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_PIXELS = re.compile(r";(16[BLN]|32)")  # in Pillow's name of how samples are stored
_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
# Compressions that Pillow lacks, in most of its builds also WebP's: JPEG 2000, LERC, PNG, JPEG XR, WebP and JPEG XL.
_NOT_PILLOWS = frozenset({33003, 33005, 34712, 34887, 34933, 34934, 50001, 50002, 52546})
DEEP_BYTES = 60  # a pixel: four channels of 16 bits as they lie, spread, turned, and float planes for the edges


class TiffTags(Image.Image):
    """Stands for a TIFF file that Pillow does not open, where its metadata are read."""

    format = "TIFF"
    tag_v2: dict[int, object] = {}  # noqa: RUF012

    def __init__(self, info: Info):
        super().__init__()
        self.info.update(info)


def bits_of(image: Image.Image, name: str, file: BinaryIO | None) -> int:
    """Bits of the deepest channel, as far as they are more than 8."""
    deep = image.mode in _MODES or ";" in image.mode
    for tile in getattr(image, "tile", ()):  # what Pillow is going to decode, as long as it has not
        words = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        deep = deep or any(isinstance(word, str) and _PIXELS.search(word) for word in words)
    bits = 16 if deep else 8
    if image.format == "HEIF":
        bits = max(bits, image.info.get("bit_depth") or 8)
    if image.format == "JXL" and file is not None:
        header = read_header(file)
        bits = max(bits, header.bits)
        if header.animated:
            raise ImageError(f"{name} is an animation and only single images are upscaled; {EXTRACT}")
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        declared = image.tag_v2.get(258, 8)
        bits = max(bits, *(declared if isinstance(declared, tuple) else (declared,)))
    elif file is not None and image.format:
        bits = max(bits, bits_per_sample(file, image.format))
    return bits


def refuse_deep(image: Image.Image, name: str, bits: int, deep: bool, in_memory: bool, file: BinaryIO | None) -> None:
    """ImageError for an image of more than 8 bits a channel that cannot be read with them.

    ``file``: what it was opened from. Of TIFF files ``of_tiff`` has read those that can be, before Pillow opened them.
    """
    remedy = TO_EIGHT
    if deep and in_memory and image.mode.startswith("I;16") and "transparency" not in image.info:
        return
    if image.format == "TIFF" and file is not None:
        position = file.tell()
        what = what_it_is(file, "TIFF")
        file.seek(position)
        if what is not None:
            raise ImageError(f"{name} {what}")
    if deep and not in_memory and image.format in KINDS - {"TIFF"} and image.mode not in ("F", "CMYK"):
        if not (needed := missing(image.format)):
            return
        remedy = f"{needed}, or {TO_EIGHT}"
    count = "more than 8" if image.mode in "IF" else bits
    raise ImageError(f"{name} has {count} bits per channel, which would be lost; {remedy}")


def values_of(image: Image.Image, name: str, bits: int, stream: BinaryIO | None) -> np.ndarray:
    """uint16 (H, W, C) of an image that is decoded and not refused by ``refuse_deep``."""
    if stream is None:  # Pillow gives those of a TIFF as they lie in the file
        return spread(np.asarray(image)[:, :, None], (1 << bits) - 1 if image.format == "TIFF" else 0xFFFF)
    try:
        return read_png(stream) if image.format == "PNG" else read_ppm(stream)
    except Exception as problem:
        raise damaged(name, problem) from problem


def own_tiff(stream: BinaryIO, deep: bool) -> tuple[str, Tags] | None:
    """(byte order, tags) of a TIFF file that ``of_tiff`` reads, not Pillow; None of any other.

    Such a file holds integers of 9 to 16 bits a channel, where these are asked for (``deep``), or of 8 in a compression
    that Pillow lacks and the extra has.
    """
    stream.seek(0)
    try:
        order, tags, _ = read_tags(stream)
    except Damaged:
        return None
    bits, compression = tiff_bits(order, tags), whole_numbers(order, tags, _COMPRESSION, 1)[0]
    ours = deep if 8 < bits <= 16 else bits == 8 and compression in _NOT_PILLOWS and not missing("TIFF")
    return (order, tags) if ours and is_grey_or_rgb(order, tags) else None


def lacking(image: Image.Image) -> str:
    """What a TIFF file needs that Pillow could not decode, as words to follow its name; empty of any other image."""
    compression = getattr(image, "tag_v2", {}).get(_COMPRESSION)
    if compression not in _NOT_PILLOWS or not (needed := missing("TIFF")):
        return ""
    return f"is compressed in a way that Pillow cannot read here (TIFF's number {compression}); {needed}"


def of_tiff(stream: BinaryIO, name: str, order: str, tags: Tags) -> Photo:
    """A TIFF file of ``own_tiff``; of 9 to 16 bits a channel Pillow opens it as far as it is grey."""
    bits = tiff_bits(order, tags)
    if needed := missing("TIFF"):
        raise ImageError(f"{name} has {bits} bits per channel, which would be lost; {needed}, or {TO_EIGHT}")
    notes: list[str] = []
    width, height = (whole_numbers(order, tags, tag, 0)[0] for tag in (_WIDTH, _HEIGHT))
    what = f"reading {name} ({width}x{height} pixels)"
    require_memory(width * height * DEEP_BYTES, what, "crop it or use a machine with more memory")
    try:
        values = read_tiff(stream, order, tags, name, notes)
        info, _ = read_metadata(TiffTags(tiff_info(order, tags)), notes, stated_in_file(TiffTags({}), stream, notes))
    except Exception as problem:
        raise damaged(name, problem) from problem
    own = {tag: value for tag, value in tags.items() if tag == ORIENTATION}  # of whatever type
    upright = turned(values, pillows_orientation_of(block_of(own, order)) if own else 1)
    photo = of_levels(upright, "TIFF", info, notes)
    mode = "L" if photo.mode == "I;16" else photo.mode.removesuffix(";16")  # as Pillow calls those of 8 bits
    return photo if bits > 8 else replace(photo.in_eight_bits(), mode=mode)


def turned(values: np.ndarray, orientation: object) -> np.ndarray:
    """(H, W, C) upright; as they lie where the orientation, as Pillow has it, is none."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if rows else 1, :: -1 if columns else 1]


def of_levels(values: np.ndarray, kind: str | None, info: Info, notes: list[str]) -> Photo:
    """The photograph of upright uint16 values (H, W, C): grey or RGB, with alpha where C is even."""
    channels = values.shape[2]
    grey, layout = channels < 3, ("I;16", "LA;16", "RGB;16", "RGBA;16")[channels - 1]
    alpha = np.ascontiguousarray(values[:, :, -1]) if channels % 2 == 0 else None
    rgb = np.ascontiguousarray(values[:, :, :1].repeat(3, axis=2) if grey else values[:, :, :3])
    filled = rgb if alpha is None else bleed(rgb, alpha)
    return Photo(filled, alpha, grey, layout, kind, None, info, notes, None if filled is rgb else rgb)
