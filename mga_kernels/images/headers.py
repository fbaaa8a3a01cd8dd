"""What the header of a file states and Pillow does not tell.

Pillow decodes 16-bit colour to 8 bits without a word, so whether a file has more than 8 must be read from the file.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from .boxes import boxes
from .ifd import Damaged, Tags, read_tags

HEAD = 1 << 16
TO_EIGHT = "convert it to 8 bits first (for example `magick IN -depth 8 OUT`)"
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_SAMPLES = {1: "integers", 2: "signed integers", 3: "floating-point numbers", 5: "complex", 6: "complex"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "inks", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab"}
_RAW = (32803, 34892)  # photometric: colours as the sensor saw them
_COMMENT, _PPM_WORDS = re.compile(rb"#[^\r\n]*[\r\n]?"), re.compile(rb"\S+\s+\S+\s+\S+\s+(\S+)\s")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def bits_per_sample(stream: BinaryIO, kind: str) -> int:
    """Bits of the deepest channel of the image file in ``stream`` (position is kept); 8 where nothing says more.

    ``kind`` is Pillow's name of the format. TIFF is not read here: Pillow tells its BitsPerSample itself. A stream that
    holds something else, such as the pixels that Pillow keeps in place of a file, counts as 8.
    """
    reader = {"PNG": _png, "PPM": _ppm, "JPEG2000": _jpeg2000, "AVIF": _avif, "SGI": _sgi, "DDS": _dds}.get(kind)
    if reader is None:
        return 8
    position = stream.tell()
    try:
        stream.seek(0)
        return reader(stream)
    except (struct.error, IndexError, ValueError):
        return 8  # a header this short is damaged, which decoding will report
    finally:
        stream.seek(position)


def _png(stream: BinaryIO) -> int:
    head = stream.read(25)  # IHDR comes first: signature 8, length 4, type 4, width 4, height 4, depth
    return head[24] if head.startswith(b"\x89PNG") else 8


def _ppm(stream: BinaryIO) -> int:
    """From the largest value, the fourth word. Comments may stand anywhere, also within words, and be of any length."""
    head = stream.read(HEAD)
    if head.startswith(b"P7"):  # PAM
        found = re.search(rb"^MAXVAL\s+(\d+)", head, re.MULTILINE)
        return int(found[1]).bit_length() if found else 8
    if head[:2] in (b"Pf", b"PF"):
        return 32
    if head[:2] in (b"P1", b"P4"):
        return 1
    while (words := _PPM_WORDS.match(_COMMENT.sub(b"", head))) is None and (more := stream.read(len(head))):
        head += more
    return int(words[1]).bit_length() if words else 8


def _jpeg2000(stream: BinaryIO) -> int:
    """From the SIZ segment of the codestream, which is one of the boxes of a JP2 file."""
    start = 0
    if stream.read(4) != b"\xff\x4f\xff\x51":
        start = next((begin for kind, begin, _ in boxes(stream) if kind == b"jp2c"), 0)
    stream.seek(start)
    head = stream.read(HEAD)
    if head[:4] != b"\xff\x4f\xff\x51":
        return 8
    # SOC 2, SIZ 2, length 2, capabilities 2, eight 32-bit sizes, then the count of components and 3 bytes of each.
    count = struct.unpack_from(">H", head, 40)[0]
    return max((head[42 + 3 * i] & 0x7F) + 1 for i in range(count))


def _avif(stream: BinaryIO) -> int:
    """From the configuration (av1C) of every coded item: 8, 10 or 12 bits."""
    depth = 8
    for kind, begin, end in boxes(stream):
        stream.seek(begin)
        for found in re.finditer(b"av1C", stream.read(end - begin) if kind == b"meta" else b""):
            flags = found.string[found.end() + 2]
            depth = max(depth, 8 if not flags & 0x40 else 12 if flags & 0x20 else 10)
    return depth


def _sgi(stream: BinaryIO) -> int:
    head = stream.read(4)
    return 8 * head[3] if head.startswith(b"\x01\xda") else 8  # bytes per channel


def _dds(stream: BinaryIO) -> int:
    """16 for BC6H, halves of floats that Pillow makes bytes of; the other kinds that it reads have 8 bits or less."""
    head = stream.read(132)
    extended = head.startswith(b"DDS ") and head[84:88] == b"DX10"
    return 16 if extended and struct.unpack_from("<I", head, 128)[0] in (94, 95, 96) else 8


def what_it_is(stream: BinaryIO, kind: str) -> str | None:
    """What a TIFF or JPEG file holds that Pillow does not read, to follow the name of the file; None where unknown."""
    try:
        if kind == "TIFF":
            order, tags, _ = read_tags(stream)
            return _tiff(order, tags)
        return _jpeg(stream) if kind == "JPEG" else None
    except (Damaged, struct.error):
        return None


def whole_numbers(order: str, tags: Tags, tag: int, default: int) -> tuple[int, ...]:
    """The numbers of a tag of a TIFF file, the default where it is not there or holds others."""
    kind, value = tags.get(tag, (3, struct.pack(order + "H", default)))
    layout = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
    if layout is None or isinstance(value, dict):
        return (default,)
    return struct.unpack(f"{order}{len(value) // struct.calcsize(layout)}{layout}", value)


def _tiff(order: str, tags: Tags) -> str | None:
    def numbers(tag: int, default: int) -> tuple[int, ...]:
        return whole_numbers(order, tags, tag, default)

    bits, (photometric, *_) = max(numbers(_BITS, 1)), numbers(_PHOTOMETRIC, 1)
    samples = _SAMPLES.get(max(numbers(_SAMPLE_FORMAT, 1)), "samples of no known kind")
    if photometric in _RAW:
        return "holds what a camera's sensor saw (a raw photograph); develop it into an image first"
    if bits > 8 or samples != "integers":
        return f"has {bits} bits per channel ({samples}), which would be lost; {TO_EIGHT}"
    stored = f"{_COLOURS.get(photometric, f'colours of kind {photometric}')}, {bits} bits a channel"
    return f"is a TIFF file of a kind that cannot be read here ({stored}, compression {numbers(_COMPRESSION, 1)[0]})"


def _jpeg(stream: BinaryIO) -> str | None:
    """From the frame header, which stands behind segments of whatever else."""
    stream.seek(2)
    while len(head := stream.read(4)) == 4 and head[0] == 0xFF:
        _, marker, length = struct.unpack(">BBH", head)
        if marker in _JPEG_FRAMES:
            bits, _, _, layers = struct.unpack(">BHHB", stream.read(6))
            if bits > 8:
                return f"has {bits} bits per channel, which would be lost; {TO_EIGHT}"
            what = f"is a JPEG file of {layers} channels, which is neither grey nor colour"
            return None if layers in (1, 3, 4) else what
        stream.seek(length - 2, 1)
    return None


def bmp_profile(stream: BinaryIO) -> bytes | None:
    """The ICC profile inside a BMP file (version 5 of its header); None where there is none."""
    stream.seek(14)
    header = stream.read(124)
    if len(header) < 124 or struct.unpack_from("<I", header)[0] < 124 or header[56:60] != b"DEBM":  # MBED, as a number
        return None
    offset, length = struct.unpack_from("<II", header, 112)
    stream.seek(14 + offset)
    profile = stream.read(length)
    return profile if len(profile) == length and length else None
