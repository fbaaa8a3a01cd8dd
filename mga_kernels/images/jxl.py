"""What a JPEG XL file says of itself and Pillow's plug-in does not tell: depth, animation, XMP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from .boxes import boxes

_HEAD = 64  # bytes of the codestream, of which its headers take fewer
_XMP_LIMIT = 64 << 20
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))  # bits of a number, and what is added to it, by the two bits before it
_PREVIEW = ((6, 1), (8, 65), (10, 321), (12, 1345))
_PREVIEW_BLOCKS = ((0, 16), (0, 32), (5, 1), (9, 33))
_INTEGER_BITS = ((0, 8), (0, 10), (0, 12), (6, 1))
_FLOAT_BITS = ((0, 32), (0, 16), (0, 24), (6, 1))


@dataclass(frozen=True)
class Header:
    """``bits`` of a channel (32, 24, 16, ... where they are floating-point numbers), ``animated``."""

    bits: int = 8
    animated: bool = False


class _Bits:
    """Numbers of any count of bits, the lowest first. IndexError where the data end."""

    def __init__(self, data: bytes):
        self.value, self.length, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def take(self, count: int) -> int:
        if self.at + count > self.length:
            raise IndexError("the header ends early")
        value = self.value >> self.at & (1 << count) - 1
        self.at += count
        return value

    def choice(self, kinds: tuple[tuple[int, int], ...]) -> int:
        count, added = kinds[self.take(2)]
        return self.take(count) + added


def read_header(stream: BinaryIO) -> Header:
    """The header of the file in ``stream``; the usual one where it is damaged, which decoding reports."""
    codestream = _codestream(stream)
    if codestream[:2] != b"\xff\x0a":
        return Header()
    bits = _Bits(codestream[2:])
    try:
        _skip_size(bits)
        if bits.take(1):  # all is as usual
            return Header()
        animated = bool(bits.take(1)) and _skip_extra(bits)
        return Header(bits.choice(_FLOAT_BITS if bits.take(1) else _INTEGER_BITS), animated)
    except IndexError:
        return Header()


def _codestream(stream: BinaryIO) -> bytes:
    """How the codestream begins, which may be the file or be in pieces in boxes of it."""
    stream.seek(0)
    head = stream.read(_HEAD)
    if head[:2] == b"\xff\x0a":
        return head
    found = b""
    for kind, begin, end in boxes(stream):
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 if kind == b"jxlp" else 0  # its number
            stream.seek(begin)
            found += stream.read(min(_HEAD, max(0, end - begin)))
            if len(found) >= _HEAD:
                break
    return found


def _skip_size(bits: _Bits) -> None:
    blocks = bits.take(1)
    for side in range(2):
        if blocks:
            bits.take(5)
        else:
            bits.choice(_SIZE)
        if side == 0 and bits.take(3):  # the width follows from the height
            return


def _skip_extra(bits: _Bits) -> bool:
    """Orientation, sizes of other kinds; whether it is an animation. What describes one comes before the depth, too."""
    bits.take(3)
    if bits.take(1):
        _skip_size(bits)
    if bits.take(1):
        kinds = _PREVIEW_BLOCKS if bits.take(1) else _PREVIEW
        bits.choice(kinds)
        if not bits.take(3):
            bits.choice(kinds)
    if not bits.take(1):
        return False
    bits.choice(((0, 100), (0, 1000), (10, 1), (30, 1)))  # ticks a second
    bits.choice(((0, 1), (0, 1001), (8, 1), (10, 1)))
    bits.choice(((0, 0), (3, 0), (16, 0), (32, 0)))  # repetitions
    bits.take(1)
    return True


def xmp(stream: BinaryIO, notes: list[str]) -> bytes | None:
    """The XMP packet, which the plug-in leaves out."""
    for kind, begin, end in boxes(stream):
        stream.seek(begin)
        if kind == b"xml ":
            return stream.read(min(end - begin, _XMP_LIMIT))
        if kind == b"brob" and stream.read(4) == b"xml ":
            notes.append("its XMP data is compressed in a way that is not read here and was left out")
    return None
