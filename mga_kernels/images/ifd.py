"""Directories of tags, as TIFF files and EXIF blocks hold them: taken apart and put together without changing a value.

Pillow decodes values and encodes them again by tables of its own, which raises for types that those do not expect,
makes question marks of letters beyond ASCII, and leaves pointers into the old block as they were.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
POINTERS = frozenset((EXIF_IFD, GPS_IFD, INTEROP_IFD))
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, IFD, LONG8 = 2, 3, 4, 5, 7, 13, 16
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

# Tag -> its type and its value: bytes in the order of the file, or the directory that it points to.
Tags = dict[int, "tuple[int, bytes | Tags]"]


class Damaged(ValueError):
    """What claims to be a directory of tags has not even its header."""


def read_tags(stream: BinaryIO, without: frozenset[int] = frozenset()) -> tuple[str, Tags, bool]:
    """(byte order "<" or ">", the tags of the first directory, whether something of it could not be read).

    ``stream`` begins with the header of a TIFF file (also BigTIFF) or of a bare EXIF block; the tags ``without`` are
    not looked at. Raises Damaged where there is no header.
    """
    stream.seek(0, 2)
    reader = _Reader(stream, stream.tell(), without)
    return reader.order, reader.directory(reader.first), reader.damaged


class _Reader:
    def __init__(self, stream: BinaryIO, length: int, without: frozenset[int]):
        self.stream, self.length, self.without, self.damaged = stream, length, without, False
        self.left = length  # of bytes of values: overlapping ones could otherwise add up to any amount
        self.order = {b"II": "<", b"MM": ">"}.get(self._read(0, 2), "")
        magic = self._read(2, 2)
        if not self.order or magic not in (b"*\0", b"\0*", b"+\0", b"\0+"):
            raise Damaged("it does not begin as a directory of tags does")
        self.big = b"+" in magic
        try:
            (self.first,) = self._unpack("Q", 8) if self.big else self._unpack("I", 4)
        except struct.error:
            raise Damaged("it ends within its header") from None

    def _read(self, offset: int, count: int) -> bytes:
        if offset > self.length:
            return b""
        self.stream.seek(offset)
        return self.stream.read(min(count, self.length - offset))

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack(self.order + layout, self._read(offset, struct.calcsize("=" + layout)))

    def directory(self, offset: int, inside: int | None = None) -> Tags:
        """The tags of the directory at ``offset``, to which the tag ``inside`` points."""
        tags: Tags = {}
        entry, place = ("HHQ", 8) if self.big else ("HHI", 4)
        try:
            (count,) = self._unpack("Q" if self.big else "H", offset)
            start, size = offset + (8 if self.big else 2), 4 + 2 * place
            self.damaged = self.damaged or start + count * size > self.length
            for at in range(start, min(start + count * size, self.length), size):
                tag, kind, number = self._unpack(entry, at)
                if tag not in tags and tag not in self.without:
                    self._add(tags, tag, kind, number, at + 4 + place, place, inside)
        except struct.error:
            self.damaged = True
        return tags

    def _add(self, tags: Tags, tag: int, kind: int, number: int, at: int, place: int, inside: int | None) -> None:
        size = _BYTES.get(kind, 0) * number
        if size > place:
            (at,) = self._unpack("Q" if self.big else "I", at)
        value = self._read(at, size) if size <= self.left else b""
        self.left -= len(value)
        if len(value) != size or not size:
            self.damaged = self.damaged or kind not in _BYTES or size > 0
        elif tag not in POINTERS:
            tags[tag] = kind, value
        elif kind in (SHORT, LONG, IFD, LONG8, 18) and (inside is None or (inside, tag) == (EXIF_IFD, INTEROP_IFD)):
            layout = {2: "H", 4: "I", 8: "Q"}[_BYTES[kind]]
            nested = self.directory(struct.unpack_from(self.order + layout, value)[0], tag)
            if nested:
                tags[tag] = LONG, nested
        else:
            self.damaged = True


def write_tags(tags: Tags, order: str, offset: int, big: bool = False) -> bytes:
    """A directory, and after it those nested in it, as the bytes that are to stand at ``offset``, which is even."""
    place, pointer = (8, "Q") if big else (4, "I")
    head = [struct.pack(order + ("Q" if big else "H"), len(tags))]
    end = offset + len(head[0]) + len(tags) * (4 + 2 * place) + place
    tail: list[bytes] = []
    for tag, (kind, value) in sorted(tags.items()):
        if isinstance(value, dict):
            kind, count, data = (LONG8 if big else LONG), 1, struct.pack(order + pointer, end)
            tail.append(write_tags(value, order, end, big))
            end += len(tail[-1])
        else:
            count, data = len(value) // _BYTES[kind], value
        if len(data) > place:
            tail.append(data + b"\0" * (len(data) % 2))
            data = struct.pack(order + pointer, end)
            end += len(tail[-1])
        head.append(struct.pack(order + "HH" + pointer, tag, kind, count) + data.ljust(place, b"\0"))
    return b"".join([*head, bytes(place), *tail])


def swapped(tags: Tags, order: str) -> Tags:
    """The tags with their numbers in ``order`` instead of the other byte order."""
    units = {1: 1, 2: 1, 6: 1, 7: 1, 3: 2, 8: 2, 12: 8, 16: 8, 17: 8, 18: 8}
    other = "<" if order == ">" else ">"
    result: Tags = {}
    for tag, (kind, value) in tags.items():
        if isinstance(value, dict):
            result[tag] = kind, swapped(value, order)
        else:
            layout = f"{len(value) // units.get(kind, 4)}{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[units.get(kind, 4)] }"
            result[tag] = kind, struct.pack(order + layout, *struct.unpack(other + layout, value))
    return result


def narrow(tags: Tags, order: str) -> tuple[Tags, bool]:
    """The tags with the types of plain TIFF and EXIF instead of those of BigTIFF, and whether a value was too large."""
    result: Tags = {}
    lost = False
    for tag, (kind, value) in tags.items():
        if isinstance(value, dict):
            inner, too_large = narrow(value, order)
            result[tag], lost = (kind, inner), lost or too_large
        elif kind < LONG8:
            result[tag] = kind, value
        else:
            numbers = struct.unpack(f"{order}{len(value) // 8}{'q' if kind == 17 else 'Q'}", value)
            layout = f"{order}{len(numbers)}{'i' if kind == 17 else 'I'}"
            try:
                result[tag] = (9 if kind == 17 else LONG), struct.pack(layout, *numbers)
            except struct.error:
                lost = True
    return result, lost
