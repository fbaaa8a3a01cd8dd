"""TIFF files that Pillow or tifffile wrote, given every tag as it was, whatever its type."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .ifd import RATIONAL, Tags, read_tags, swapped, write_tags

XMP, IPTC, RESOURCES, PROFILE, LAYERS = 700, 33723, 34377, 34675, 37724
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296


def rational(order: str, tags: Tags, tag: int) -> float | None:
    """The number of a tag that holds a fraction; None where it does not."""
    kind, value = tags.get(tag, (0, b""))
    if kind != RATIONAL or not isinstance(value, bytes) or len(value) != 8:
        return None
    above, below = struct.unpack(order + "II", value)
    return above / below if below else None


def add_tags(stream: BinaryIO, tags: Tags, order: str) -> None:
    """Add ``tags``, whose values are in byte order ``order``, to the one picture in the file; its own go before.

    The file takes the byte order of the tags, in which makers' notes may be written too: samples of 8 bits have none,
    and those of 16 were written in it.
    """
    written, own, _ = read_tags(stream)
    stream.seek(2)
    big = b"+" in stream.read(2)
    if big and order != written:  # Pillow reads BigTIFF in the order that it writes only
        tags, order = swapped(tags, written), written
    own = own if written == order else swapped(own, order)
    end = stream.seek(0, 2)
    stream.write(bytes(end % 2) + write_tags(tags | own, order, end + end % 2, big))
    stream.seek(0)
    mark = b"II" if order == "<" else b"MM"
    layout, *numbers = ("HHHQ", 43, 8, 0) if big else ("HI", 42)
    stream.write(mark + struct.pack(order + layout, *numbers, end + end % 2))
    stream.seek(0, 2)
