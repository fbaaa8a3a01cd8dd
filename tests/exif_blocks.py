"""EXIF blocks made byte by byte, also such as no writer would make."""

import struct

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def entry(tag, type_, value):
    """(tag, type, count, value) of a tag whose value has these bytes."""
    return tag, type_, len(value) // BYTES[type_], value


def exif_block(*entries, order="<", sort=True, claim=None):
    """A block with one directory; it claims to have ``claim`` entries where that is given.

    A value of more than four bytes stands behind the directory; one of four with a larger count is taken for its place.
    """
    entries = sorted(entries) if sort else entries
    start = 8 + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(order + "H", len(entries) if claim is None else claim), b""
    for tag, type_, count, value in entries:
        directory += struct.pack(order + "HHI", tag, type_, count)
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", start + len(values))
            values += value + bytes(len(value) % 2)
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    return b"Exif\0\0" + head + directory + bytes(4) + values
