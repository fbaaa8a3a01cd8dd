"""The EXIF block of a photograph: brought up to date in place, or taken apart for a format that has its tags itself."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from .ifd import EXIF_IFD, INTEROP_IFD, Damaged, Tags, narrow, read_tags, write_tags

PREFIX = b"Exif\0\0"
_HEADERS = (b"II*\0", b"MM\0*")
# How nearly all blocks begin, and how many are looked at in one.
_BEGIN, _MOST = re.compile(rb"II\*\0\x08\0\0\0|MM\0\*\0\0\0\x08"), 8
ORIENTATION = 0x0112
# Where EXIF repeats how wide and how high the picture is: in its first directory, its own, and that of DCF.
_WIDTHS, _HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)
# Tags that describe how a TIFF stores its own pixels, or hold other pictures; they would be wrong in any other file.
STRUCTURAL = frozenset(
    int(tag)
    for tag in """
        254 255 256 257 258 259 262 263 264 265 266 273 277 278 279 280 281 284 288 289 290 291 292 293 317 320 322 323
        324 325 326 327 328 330 332 333 334 336 338 339 340 341 347 512 513 514 515 517 518 519 520 521 529 530 531 532
        559 700 32995 32996 32997 32998 33723 34377 34675 37724 48129""".split()
)


def one_prefix(exif: bytes) -> bytes:
    """The block with the one prefix that it has in a JPEG file, however often (or never) it stood there."""
    while exif.startswith(PREFIX):
        exif = exif[len(PREFIX) :]
    return PREFIX + exif if exif else b""


def with_header(exif: bytes) -> bytes:
    """The block with the header of a directory of tags; empty where it holds none.

    Without one readers fail with the whole file. A wrong number in it (43, 0) is mended where the tags can be read.
    """
    head = exif[len(PREFIX) :][:4]
    if head in (*_HEADERS, b"II\0*", b"MM*\0"):  # the last two are read too
        return exif
    for header in _HEADERS:
        if head[:2] == header[:2]:
            mended = header + exif[len(PREFIX) + 4 :]
            with suppress(Damaged):
                _, tags, damaged = read_tags(io.BytesIO(mended))
                return PREFIX + mended if tags and not damaged else b""
    return b""


def patch_exif(exif: bytes, values: dict[int, int], drop_thumbnail: bool = False) -> bytes:
    """Overwrite tags that are present in IFD0, the Exif IFD and that of DCF by one integer; all other bytes stay.

    Writing EXIF anew would move the maker's notes, whose offsets only the maker knows. Where the block is damaged, what
    comes before the damage is overwritten all the same, because it is also what readers find.
    """
    data = bytearray(exif)
    _patch(data, 0, values, drop_thumbnail)
    return bytes(data)


def _patch(data: bytearray, begin: int, values: dict[int, int], drop_thumbnail: bool) -> None:
    """``patch_exif`` of the block that begins there."""
    base, order = _start(data, begin)
    if not order:
        return

    def patch(offset: int, pointers: tuple[int, ...]) -> None:
        """One directory, and the one that it points to by the first of ``pointers``."""
        try:
            for tag, kind, at in _entries(data, order, base, offset):
                if tag == -1 and drop_thumbnail and pointers[:1] == (EXIF_IFD,):
                    struct.pack_into("I", data, at, 0)
                elif pointers and tag == pointers[0]:
                    patch(struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0], pointers[1:])
                elif tag in values:
                    short = values[tag] <= 0xFFFF
                    number = struct.pack(order + ("H" if short else "I"), values[tag]).ljust(4, b"\0")
                    data[at + 2 : at + 12] = struct.pack(order + "HI", 3 if short else 4, 1) + number
        except struct.error:
            pass  # the directory ends here for every reader

    patch(struct.unpack_from(order + "I", data, base + 4)[0], (EXIF_IFD, INTEROP_IFD))


def without_turn(exif: bytes) -> bytes:
    """The block of a picture that stands upright: its orientation is 1, also in blocks that follow in the same data.

    A file may have several, which Pillow joins; some readers look for the first that they understand.
    """
    data = bytearray(patch_exif(exif, {ORIENTATION: 1}))
    for begin in [match.start() for match in islice(_BEGIN.finditer(data), _MOST)]:
        _patch(data, begin, {ORIENTATION: 1}, False)
    return bytes(data)


def without_orientation(exif: bytes) -> bytes:
    """The block without that tag, where Pillow would write the block anew because of it; no other value moves."""
    data = bytearray(exif)
    base, order = _start(exif)
    if not order:
        return exif
    offset = struct.unpack_from(order + "I", data, base + 4)[0]
    try:
        places = {tag: at for tag, _, at in _entries(data, order, base, offset)}
    except struct.error:
        return exif
    if ORIENTATION in places:
        at, end = places[ORIENTATION], places[-1]
        data[at : end + 4] = data[at + 12 : end + 4] + bytes(12)
        struct.pack_into(order + "H", data, base + offset, (end - base - offset - 2) // 12 - 1)
    return bytes(data)


def _start(exif: bytes | bytearray, base: int = 0) -> tuple[int, str]:
    """Where the block at ``base`` begins behind its prefixes, and its byte order; "" where it is none."""
    while exif.startswith(PREFIX, base):
        base += len(PREFIX)
    return base, {b"II": "<", b"MM": ">"}.get(bytes(exif[base : base + 2]), "") if len(exif) >= base + 8 else ""


def _entries(data: bytearray, order: str, base: int, offset: int) -> Iterator[tuple[int, int, int]]:
    """(tag, type, place in ``data``) of a directory, at last (-1, 0, place of the offset of the next directory)."""
    (count,) = struct.unpack_from(order + "H", data, base + offset)
    start = base + offset + 2
    for at in range(start, start + 12 * count, 12):
        yield *struct.unpack_from(order + "HH", data, at), at
    yield -1, 0, start + 12 * count


def resized(exif: bytes, width: int, height: int) -> bytes:
    """The block of a picture that is now ``width`` x ``height`` pixels."""
    return patch_exif(exif, dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_HEIGHTS, height))


def from_tags(tags: Tags, order: str) -> tuple[bytes, bool]:
    """The block that holds these tags of a TIFF file, empty where there are none, and whether a value did not fit."""
    tags, lost = narrow({tag: value for tag, value in tags.items() if tag != ORIENTATION}, order)
    return (block_of(tags, order) if tags else b""), lost


def block_of(tags: Tags, order: str) -> bytes:
    """The block that holds these tags."""
    header = {"<": b"II*\0\x08\0\0\0", ">": b"MM\0*\0\0\0\x08"}[order]
    return PREFIX + header + write_tags(tags, order, 8)


def to_tags(exif: bytes) -> tuple[str, Tags, bool]:
    """(byte order, the tags that a TIFF file can take over, whether something could not be read)."""
    try:
        return read_tags(io.BytesIO(exif.removeprefix(PREFIX)), STRUCTURAL)
    except Damaged:
        return "<", {}, True
