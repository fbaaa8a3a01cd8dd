"""Bits per sample as the file's header states them.

Pillow decodes 16-bit colour to 8 bits without a word, so whether a file has more than 8 must be read from the file.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

HEAD = 1 << 16


def bits_per_sample(stream: BinaryIO, kind: str) -> int:
    """Bits of the deepest channel of the image file in ``stream`` (position is kept); 8 where nothing says more.

    ``kind`` is Pillow's name of the format. TIFF is not read here: Pillow tells its BitsPerSample itself.
    """
    reader = {"PNG": _png, "PPM": _ppm, "JPEG2000": _jpeg2000, "AVIF": _avif, "SGI": _sgi, "DDS": _dds}.get(kind)
    if reader is None:
        return 8
    position = stream.tell()
    try:
        stream.seek(0)
        return reader(stream.read(HEAD))
    except (struct.error, IndexError):
        return 8  # a header this short is damaged, which decoding will report
    finally:
        stream.seek(position)


def _png(head: bytes) -> int:
    return head[24]  # IHDR comes first: signature 8, length 4, type 4, width 4, height 4, depth


def _ppm(head: bytes) -> int:
    words = re.sub(rb"#[^\r\n]*", b" ", head[:4096]).split(None, 4)
    if words[0] == b"P7":  # PAM
        found = re.search(rb"^MAXVAL\s+(\d+)", head, re.MULTILINE)
        return int(found[1]).bit_length() if found else 8
    if words[0] in (b"Pf", b"PF"):
        return 32
    return int(words[3]).bit_length() if words[0] in (b"P2", b"P3", b"P5", b"P6") else 1


def _jpeg2000(head: bytes) -> int:
    """From the SIZ segment of the codestream, whose box is found by walking the boxes of a JP2 file."""
    start = 0
    while head[start : start + 4] != b"\xff\x4f\xff\x51":
        length, kind = struct.unpack_from(">I4s", head, start)
        header = 8
        if length == 1:
            length, header = struct.unpack_from(">Q", head, start + 8)[0], 16
        start += header if kind == b"jp2c" else max(length, 8)
    # SOC 2, SIZ 2, length 2, capabilities 2, eight 32-bit sizes, then the count of components and 3 bytes of each.
    count = struct.unpack_from(">H", head, start + 40)[0]
    return max((head[start + 42 + 3 * i] & 0x7F) + 1 for i in range(count))


def _avif(head: bytes) -> int:
    """From the configuration (av1C) of every coded item: 8, 10 or 12 bits."""
    depth = 8
    for found in re.finditer(b"av1C", head):
        flags = head[found.end() + 2]
        depth = max(depth, 8 if not flags & 0x40 else 12 if flags & 0x20 else 10)
    return depth


def _sgi(head: bytes) -> int:
    return 8 * head[3]  # bytes per channel


def _dds(head: bytes) -> int:
    """16 for BC6H, halves of floats that Pillow makes bytes of; the other kinds that it reads have 8 bits or less."""
    extended = head[84:88] == b"DX10"
    return 16 if extended and struct.unpack_from("<I", head, 128)[0] in (94, 95, 96) else 8
