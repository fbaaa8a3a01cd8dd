"""JPEG files without the segments beside the picture that Pillow fails with."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

from .exif import PREFIX
from .info import Info

_EXIF, _COMMENT, _SCAN = 0xE1, 0xFE, 0xDA


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


def mended(stream: BinaryIO, notes: list[str]) -> tuple[BinaryIO, Info] | None:
    """The file without the segments of metadata that Pillow fails with, and the EXIF block of these.

    None where it fails with none of them. ``notes`` say which were left out.
    """
    stream.seek(0)
    data = stream.read()
    kept, behind, exif = [], 0, b""
    for marker, begin, end in segments(io.BytesIO(data)):
        content = data[begin + 4 : end]
        if not (0xE0 <= marker <= 0xEF or marker == _COMMENT) or _taken(data[begin:end]):
            continue
        kept.append(data[behind:begin])
        behind = end
        if marker == _EXIF and content.startswith(PREFIX):  # whatever Pillow makes of some of its tags
            exif += content[len(PREFIX) :]
            continue
        name = "COM" if marker == _COMMENT else f"APP{marker - 0xE0}"
        notes.append(f"its segment {name} is damaged and was left out")
    if not behind:
        return None
    return io.BytesIO(b"".join([*kept, data[behind:]])), {"exif": PREFIX + exif} if exif else {}


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
