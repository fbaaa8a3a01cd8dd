"""Files made of boxes (AVIF, JPEG 2000): what Pillow does not tell of their colours and metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from .info import Info

_LARGEST = 64 << 20  # bytes of a box that is read whole
_XMP = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_EXIF = b"JpgTiffExif->JP2"
_IPTC = bytes.fromhex("33C7A4D2B81D4723A0BAF1A3E097AD38")


def boxes(stream: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end) of the content of each box between ``start`` and ``end``; ends where there is no box."""
    if end is None:
        end = stream.seek(0, 2)
    while start + 8 <= end:
        stream.seek(start)
        head = stream.read(16)
        length, kind = struct.unpack_from(">I4s", head)
        begin = 8
        if length == 1 and len(head) == 16:
            length, begin = struct.unpack_from(">Q", head, 8)[0], 16
        stop = end if length == 0 else start + length
        if stop > end or stop < start + begin:
            return
        yield kind, start + begin, stop
        start = stop


def _content(stream: BinaryIO, box: tuple[bytes, int, int]) -> bytes:
    _, begin, end = box
    stream.seek(begin)
    return stream.read(min(end - begin, _LARGEST))


def _find(stream: BinaryIO, kind: bytes, start: int = 0, end: int | None = None) -> tuple[bytes, int, int] | None:
    return next((box for box in boxes(stream, start, end) if box[0] == kind), None)


def avif_code_points(stream: BinaryIO) -> tuple[int, int, int, int] | None:
    """The colour space that the picture of an AVIF file states by numbers (nclx), as a PNG file would have it.

    None where it states none or has an ICC profile, which goes before.
    """
    try:
        properties = _primary_properties(stream)
    except (struct.error, IndexError):
        return None
    colours = [_content(stream, box) for box in properties if box[0] == b"colr"]
    if any(data[:4] in (b"prof", b"rICC") for data in colours):
        return None
    for data in colours:
        if data[:4] == b"nclx" and len(data) >= 8:
            primaries, transfer = struct.unpack_from(">HH", data, 4)
            return primaries, transfer, 0, 1  # as RGB in the full range, which is what decoders give
    return None


def _primary_properties(stream: BinaryIO) -> list[tuple[bytes, int, int]]:
    """The boxes of properties of the picture that a file is about."""
    meta = _find(stream, b"meta")
    if meta is None:
        return []
    _, start, end = meta
    start += 4
    primary, properties = _find(stream, b"pitm", start, end), _find(stream, b"iprp", start, end)
    if primary is None or properties is None:
        return []
    data = _content(stream, primary)
    (wanted,) = struct.unpack_from(">I" if data[0] else ">H", data, 4)
    container = _find(stream, b"ipco", *properties[1:])
    held = list(boxes(stream, *container[1:])) if container else []
    chosen = []
    for box in boxes(stream, *properties[1:]):
        if box[0] == b"ipma":
            indices = _associations(_content(stream, box)).get(wanted, [])
            chosen += [held[index - 1] for index in indices if 0 < index <= len(held)]
    return chosen


def _associations(data: bytes) -> dict[int, list[int]]:
    """Item -> numbers of its properties, from an ipma box."""
    version, wide = data[0], data[3] & 1
    (count,) = struct.unpack_from(">I", data, 4)
    at, found = 8, {}
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        number = data[at]
        layout, mask = (f">{number}H", 0x7FFF) if wide else (f">{number}B", 0x7F)
        found[item] = [value & mask for value in struct.unpack_from(layout, data, at + 1)]
        at += 1 + struct.calcsize(layout)
    return found


def avif_without_exif(stream: BinaryIO) -> bytes | None:
    """The file with its EXIF data declared to be of no kind, where Pillow refuses the file because of them."""
    meta = _find(stream, b"meta")
    items = _find(stream, b"iinf", meta[1] + 4, meta[2]) if meta else None
    if items is None:
        return None
    stream.seek(0)
    data = bytearray(stream.read())
    changed = False
    for kind, begin, end in boxes(stream, items[1] + (6 if data[items[1]] == 0 else 8), items[2]):
        at = data.find(b"Exif", begin, end)
        if kind == b"infe" and at >= 0:
            data[at : at + 4] = b"skip"
            changed = True
    return bytes(data) if changed else None


def jp2_metadata(stream: BinaryIO) -> Info:
    """ICC profile, EXIF, XMP and IPTC of a JP2 file, of which Pillow reads none, under the names of ``Photo.info``."""
    info: Info = {}
    for box in boxes(stream):
        if box[0] == b"jp2h":
            for inner in boxes(stream, *box[1:]):
                data = _content(stream, inner) if inner[0] == b"colr" else b""
                if data[:1] in (b"\2", b"\3"):
                    info["icc_profile"] = data[3:]
        elif box[0] == b"uuid":
            data = _content(stream, box)
            for mark, key in ((_XMP, "xmp"), (_EXIF, "exif"), (_IPTC, "iptc")):
                if data.startswith(mark):
                    info[key] = data[16:]
    return info
