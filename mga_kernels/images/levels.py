"""Images of 9 to 16 bits a channel: their levels in and out, where Pillow has none of their modes (extra ``deep``).

PNG goes through imagecodecs, TIFF through tifffile, and PPM is so simple that its values are taken as they lie. PNG of
8 bits is written here, too, since Pillow packs it on one processor.
"""

from __future__ import annotations

import importlib
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..errors import ImageError, reason_of
from . import netpbm, png
from .formats import metadata_options, tiff_tags
from .headers import whole_numbers
from .ifd import Tags
from .info import Info, Options
from .packing import packed
from .tiff import PROFILE, RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, add_tags, rational

KINDS = frozenset({"PNG", "TIFF", "PPM"})  # that hold 16 bits a channel here
EXTRA_CHANNEL = "its extra channel, which is not marked as transparency, was left out"
_MODULES = {"PNG": ("imagecodecs",), "TIFF": ("tifffile", "imagecodecs"), "PPM": ()}
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 277, 338, 339
_WHITE_IS_0, _BLACK_IS_0, _RGB = 0, 1, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2  # alpha that colours are multiplied by, and one that they are not
_INCH = {2: 1.0, 3: 2.54}  # units of a resolution in an inch
_LAYOUTS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels


def missing(kind: str) -> str:
    """How to install what 16 bits of a ``kind`` of KINDS need; empty where it is there."""
    try:
        for module in _MODULES[kind]:
            importlib.import_module(module)
    except ImportError:
        return f"install {' and '.join(_MODULES[kind])} (the extra deep of this package)"
    return ""


def read_png(stream: BinaryIO) -> np.ndarray:
    """uint16 (H, W, C), of 1 to 4 channels; what tRNS says is alpha."""
    import imagecodecs

    stream.seek(0)
    with _unheard("imagecodecs"):
        values = np.asarray(imagecodecs.png_decode(stream.read()))
    return values if values.ndim == 3 else values[:, :, None]


@contextmanager
def _unheard(name: str) -> Iterator[None]:
    """Within it nothing that a logger of this name is told by this thread is heard.

    libpng and tifffile warn of what stands oddly beside a picture, libpng of rows that are interlaced, too, in words
    that name no file.
    """
    logger, thread = logging.getLogger(name), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def read_ppm(stream: BinaryIO) -> np.ndarray:
    """The same of a PPM or PGM file."""
    values, most = netpbm.read(stream)
    return spread(values, most)


def spread(values: np.ndarray, most: int) -> np.ndarray:
    """Integers of 0 to ``most`` as uint16 of 0 to 65535."""
    if most == 0xFFFF:
        return values.astype(np.uint16)
    return ((np.minimum(values, most).astype(np.uint32) * 0xFFFF + most // 2) // most).astype(np.uint16)


def tiff_bits(order: str, tags: Tags) -> int:
    """Bits of the deepest channel that the tags of a TIFF file declare."""
    return max(whole_numbers(order, tags, _BITS, 1))


def is_grey_or_rgb(order: str, tags: Tags) -> bool:
    """Whether a TIFF file holds unsigned integers of grey or RGB."""
    kinds, (photometric, *_) = whole_numbers(order, tags, _FORMAT, 1), whole_numbers(order, tags, _PHOTOMETRIC, 1)
    return set(kinds) == {1} and photometric in (_WHITE_IS_0, _BLACK_IS_0, _RGB)


def read_tiff(stream: BinaryIO, order: str, tags: Tags, name: str, notes: list[str]) -> np.ndarray:
    """The same of a TIFF file that ``is_grey_or_rgb``, of 8 to 16 bits. ImageError where it has several pages."""
    import tifffile

    bits, (photometric, *_) = tiff_bits(order, tags), whole_numbers(order, tags, _PHOTOMETRIC, 1)
    colours = 1 if photometric != _RGB else 3
    stream.seek(0)
    with _unheard("tifffile"), tifffile.TiffFile(stream) as file:
        if len(file.pages) > 1:
            many = f"{len(file.pages)} frames or pages of {bits} bits a channel"
            remedy = "of which only single images are upscaled; make"
            raise ImageError(f"{name} holds {many}, {remedy} files of them (for example `magick IN OUT-%03d.tif`)")
        page = file.pages.first
        values = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3:
            values = np.moveaxis(values, 0, 2)
    values = values if values.ndim == 3 else values[:, :, None]
    if values.ndim != 3 or values.shape[2] < colours:
        raise ImageError(f"{name} is damaged: its {values.shape} values are no picture")
    values = spread(values, (1 << bits) - 1)
    if photometric == _WHITE_IS_0:
        values[:, :, 0] = 0xFFFF - values[:, :, 0]
    kinds = whole_numbers(order, tags, _EXTRA, 0) if _EXTRA in tags else ()
    opaque = not kinds or kinds[0] not in (_ASSOCIATED, _UNASSOCIATED) or values.shape[2] == colours
    if values.shape[2] > colours + (not opaque):
        notes.append(EXTRA_CHANNEL)
    if opaque:
        return values[:, :, :colours]
    return _undone(values[:, :, : colours + 1]) if kinds[0] == _ASSOCIATED else values[:, :, : colours + 1]


def _undone(values: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, as they were."""
    alpha = values[:, :, -1:].astype(np.float64)
    colours = np.divide(
        values[:, :, :-1] * float(0xFFFF),
        alpha,
        out=np.zeros((*alpha.shape[:2], values.shape[2] - 1)),
        where=alpha > 0,
    )
    return np.concatenate([np.minimum(np.rint(colours), 0xFFFF).astype(np.uint16), values[:, :, -1:]], axis=2)


def tiff_info(order: str, tags: Tags) -> Info:
    """ICC profile and resolution of a TIFF file, under the names of ``PIL.Image.info``."""
    info: Info = {}
    if isinstance(profile := tags.get(PROFILE, (0, b""))[1], bytes) and profile:
        info["icc_profile"] = profile
    unit = whole_numbers(order, tags, RESOLUTION_UNIT, 2)[0]
    sides = [rational(order, tags, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    if unit in _INCH and None not in sides:
        info["dpi"] = tuple(side * _INCH[unit] for side in sides if side is not None)
    return info


def write(values: np.ndarray, kind: str, stream: BinaryIO, info: Info, notes: list[str]) -> None:
    """Write uint16 (H, W, C), PNG also uint8, as a file of ``kind`` with the metadata ``info`` that it can hold."""
    if values.dtype == np.uint16 and (needed := missing(kind)):
        raise ImageError(f"16 bits a channel cannot be written as {kind} here: {needed}")
    pixel = Image.new(_LAYOUTS[values.shape[2]], (1, 1))
    options = metadata_options(kind, pixel, info, notes)
    if kind == "TIFF":
        _write_tiff(values, stream, info, options, notes)
    elif kind == "PNG":
        _write_png(values, stream, pixel, options)
    else:
        netpbm.write(values, stream)


def _write_png(values: np.ndarray, stream: BinaryIO, pixel: Image.Image, options: Options) -> None:
    """The chunks that stand beside the picture are those that Pillow writes with one pixel of its kind."""
    height, width, channels = values.shape
    small = io.BytesIO()
    pixel.save(small, "PNG", **options)
    if values.dtype == np.uint8:
        data = packed(values, png.COMPRESSION)
    else:
        import imagecodecs

        flat = values[:, :, 0] if channels == 1 else values
        large = io.BytesIO(imagecodecs.png_encode(np.ascontiguousarray(flat), level=png.COMPRESSION))
        data = (png.data_of(large, chunk) for chunk in png.chunks(large) if chunk.kind == b"IDAT")
    png.write(stream, (width, height), 8 * values.itemsize, data, small)


def _write_tiff(values: np.ndarray, stream: BinaryIO, info: Info, options: Options, notes: list[str]) -> None:
    import tifffile

    order, tags = tiff_tags(info, notes)  # an order which the values follow, so that the tags can stay as they are
    colours = 3 if values.shape[2] > 2 else 1
    dpi = options.get("dpi")
    tifffile.imwrite(
        stream,
        values[:, :, 0] if values.shape[2] == 1 else values,
        byteorder="<" if order == "<" else ">",
        bigtiff=values.nbytes > 3 << 30,  # offsets of plain TIFF end at 4 GiB
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig" if values.shape[2] > 1 else None,
        extrasamples=["unassalpha"] * (values.shape[2] - colours),
        iccprofile=options.get("icc_profile"),
        resolution=dpi,
        resolutionunit="inch" if dpi else None,
        metadata=None,
        software=False,
    )
    if tags:
        add_tags(stream, tags, order)


def damaged(name: str, problem: Exception) -> Exception:
    """What a decoder's exception means for the file."""
    if isinstance(problem, (ImageError, MemoryError)):
        return problem
    return ImageError(f"{name} is damaged and cannot be read ({reason_of(problem)})")
