"""JPEG files without the segments beside the picture that Pillow fails with."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

_COMMENT, _SCAN = 0xFE, 0xDA


def segments(stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(marker, begin, end) of each segment, marker and length included, up to the data of the picture."""
    at = 2
    while True:
        stream.seek(at)
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _SCAN:
            return
        if head[1] == 0xFF:  # a filling byte
            at += 1
            continue
        end = at + 2 + struct.unpack(">H", head[2:])[0]
        yield head[1], at, end
        at = end


def mended(stream: BinaryIO, notes: list[str]) -> BinaryIO | None:
    """The file without the segments of metadata that Pillow fails with; None where it fails with none of them.

    ``notes`` say which were left out.
    """
    stream.seek(0)
    data = stream.read()
    kept, behind = [], 0
    for marker, begin, end in segments(io.BytesIO(data)):
        if (0xE0 <= marker <= 0xEF or marker == _COMMENT) and not _taken(data[begin:end]):
            kept.append(data[behind:begin])
            behind = end
            name = "COM" if marker == _COMMENT else f"APP{marker - 0xE0}"
            notes.append(f"its segment {name} is damaged and was left out")
    return io.BytesIO(b"".join([*kept, data[behind:]])) if behind else None


def _taken(segment: bytes) -> bool:
    """Whether Pillow opens a picture of one pixel with this segment."""
    pixel = _pixel()
    try:
        JpegImagePlugin.jpeg_factory(io.BytesIO(pixel[:2] + segment + pixel[2:]), "")
    except Exception:  # whatever a damaged segment makes it trip over
        return False
    return True


@cache
def _pixel() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "JPEG")
    return stream.getvalue()
