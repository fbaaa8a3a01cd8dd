"""PNG files by their chunks: code points of their colours, chunks that Pillow refuses, and a file of given chunks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import PngImagePlugin

from .info import Info

COMPRESSION = 4  # of 9: photographs are 4 to 13 % larger than with 6, the usual one, in less than half the time
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_TEXT = 64 << 20  # bytes of a chunk that is kept, unpacked; nothing that belongs to a photograph is as long
_XMP_KEY = b"XML:com.adobe.xmp"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Keywords of texts that Pillow would take for facts about the picture, because it keeps both in one place.
_PILLOWS_KEYS = frozenset(b"transparency interlace bbox default_image loop duration disposal blend".split())


@dataclass(frozen=True)
class Chunk:
    """``kind`` of four letters; where the chunk (length, kind, data, checksum) begins and ends in the file."""

    kind: bytes
    start: int
    end: int

    @property
    def is_ancillary(self) -> bool:
        return bool(self.kind[0] & 0x20)


def chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a file, up to where it ends or is no PNG."""
    stream.seek(0)
    if stream.read(8) != SIGNATURE:
        return
    at = 8
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield Chunk(kind, at, at + 12 + length)
        at += 12 + length
        stream.seek(at)


def write(stream: BinaryIO, size: tuple[int, int], bits: int, data: Iterable[bytes], beside: BinaryIO) -> None:
    """A file of ``size`` (width, height) with ``data`` in its IDAT chunks, and all else as in another file."""
    found = list(chunks(beside))
    start = next(chunk.start for chunk in found if chunk.kind == b"IDAT")
    header = struct.pack(">IIB", *size, bits) + data_of(beside, found[0])[9:]
    stream.write(SIGNATURE + _chunk(b"IHDR", header))
    stream.writelines(bytes_of(beside, chunk) for chunk in found if chunk.is_ancillary and chunk.start < start)
    stream.writelines(_chunk(b"IDAT", part) for part in data)
    stream.writelines(bytes_of(beside, chunk) for chunk in found if chunk.is_ancillary and chunk.start > start)
    stream.write(_chunk(b"IEND", b""))


def code_points(stream: BinaryIO) -> tuple[int, int, int, int] | None:
    """The colour space of a cICP chunk: primaries, transfer, matrix, whether the range is full; None without one."""
    for chunk in chunks(stream):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind == b"cICP" and chunk.end - chunk.start == 16:
            primaries, transfer, matrix, full = data_of(stream, chunk)
            return primaries, transfer, matrix, full
    return None


def mended(stream: BinaryIO, notes: list[str]) -> tuple[BinaryIO, Info] | None:
    """The file without the chunks beside the picture that Pillow refuses, and the metadata that stands in these.

    None where there is none, so that something else is damaged. ``notes`` say which were left out.
    """
    found = list(chunks(stream))
    # A picture of one pixel, stored as this one is, to try each chunk in.
    start = _one_pixel(stream, found)
    refused = [chunk for chunk in found if chunk.is_ancillary and start and not _taken(stream, chunk, start)]
    if not refused and start:  # then it may refuse all the texts together
        refused = [chunk for chunk in found if chunk.kind in _TEXTS]
    if not refused:
        return None
    rescued: Info = {}
    for chunk in refused:
        if not _rescue(chunk.kind, stream, chunk, rescued):
            name = chunk.kind.decode("latin-1")
            notes.append(f"its chunk {name} is damaged and was left out")
    whole = io.BytesIO(SIGNATURE)
    whole.seek(8)
    for chunk in found:
        if chunk not in refused:
            whole.write(bytes_of(stream, chunk))
    whole.seek(0)
    return whole, rescued


def _one_pixel(stream: BinaryIO, found: list[Chunk]) -> bytes:
    """The chunks before the data of a picture of one pixel, with the palette; empty where Pillow refuses that too."""
    header = next((data_of(stream, chunk) for chunk in found if chunk.kind == b"IHDR"), b"")
    start = SIGNATURE + _chunk(b"IHDR", struct.pack(">II", 1, 1) + header[8:12] + b"\0")
    start += b"".join(bytes_of(stream, chunk) for chunk in found if chunk.kind == b"PLTE")
    return start if len(header) == 13 and _opens(start) else b""


def _taken(stream: BinaryIO, chunk: Chunk, start: bytes) -> bool:
    """Whether Pillow takes a chunk; those of animations mean nothing by themselves and are not asked about."""
    if chunk.kind in _TEXTS and data_of(stream, chunk).partition(b"\0")[0] in _PILLOWS_KEYS:
        return False
    return chunk.kind in (b"acTL", b"fcTL", b"fdAT") or _opens(start + bytes_of(stream, chunk))


def _opens(start: bytes) -> bool:
    pixel = _chunk(b"IDAT", zlib.compress(bytes(16))) + _chunk(b"IEND", b"")
    try:
        PngImagePlugin.PngImageFile(io.BytesIO(start + pixel))
    except Exception:  # whatever a damaged chunk makes it trip over
        return False
    return True


def _rescue(kind: bytes, stream: BinaryIO, chunk: Chunk, rescued: Info) -> bool:
    """Unpack a profile or a text that is only too long for Pillow; whether that succeeded."""
    data = data_of(stream, chunk)
    if bytes_of(stream, chunk) != _chunk(kind, data):
        return False
    key, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        packed, method = rest[:1] != b"\0", rest[1:2]
        *_, value = rest[2:].split(b"\0", 2)
    else:
        packed, method, value = kind != b"tEXt", rest[:1], rest[1:]
        value = value if packed else rest
    unpacked = _unpacked(value) if packed and method == b"\0" else None if packed else value
    if unpacked is None or kind not in (b"iCCP", *_TEXTS):
        return False
    if kind == b"iCCP":
        rescued["icc_profile"] = unpacked
    elif key == _XMP_KEY:
        rescued["xmp"] = unpacked
    else:
        codec = "utf-8" if kind == b"iTXt" else "latin-1"
        rescued.setdefault("text", {})[key.decode("latin-1")] = unpacked.decode(codec, "replace")
    return True


def _unpacked(data: bytes) -> bytes | None:
    """The data uncompressed; None where they are damaged or too long."""
    unpack = zlib.decompressobj()
    try:
        result = unpack.decompress(data, _LONGEST_TEXT)
    except zlib.error:
        return None
    return result if unpack.eof else None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bytes_of(stream: BinaryIO, chunk: Chunk) -> bytes:
    """A chunk as it stands in the file."""
    stream.seek(chunk.start)
    return stream.read(chunk.end - chunk.start)


def data_of(stream: BinaryIO, chunk: Chunk) -> bytes:
    """What it holds."""
    stream.seek(chunk.start + 8)
    return stream.read(chunk.end - chunk.start - 12)
