"""PPM and PGM files, whose values lie in them as they are."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
_CHANNELS = {b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}


def read(stream: BinaryIO) -> tuple[np.ndarray, int]:
    """Unsigned integers (H, W, C), of 1 or 3 channels, and the largest that a value can be; ValueError if damaged."""
    stream.seek(0)
    data = stream.read()
    if data[:2] not in _CHANNELS:
        raise ValueError("it does not begin as a PPM file does")
    (width, height, most), start = _header(data)
    channels = _CHANNELS[data[:2]]
    if not 1 <= most <= 0xFFFF:
        raise ValueError(f"it has values up to {most}")
    count = width * height * channels
    if data[:2] in (b"P2", b"P3"):
        values = np.array(_COMMENT.sub(b" ", data[start:]).split()[:count], np.uint32)
    else:
        kind = np.dtype(">u2" if most > 0xFF else "u1")
        values = np.frombuffer(data, kind, min(count, (len(data) - start) // kind.itemsize), start)
    if len(values) < count:
        raise ValueError(f"it ends after {len(values)} of {count} values")
    return values.reshape(height, width, channels), most


def _header(data: bytes) -> tuple[list[int], int]:
    """Width, height and largest value, between and within which comments may stand, and where the values begin."""
    words, at = [b""], 2
    while True:
        letter = data[at : at + 1]
        at += 1
        if letter == b"#":
            at = min(end for end in (data.find(b"\n", at), data.find(b"\r", at), len(data)) if end >= 0) + 1
        elif letter.isdigit():
            words[-1] += letter
        elif letter.isspace() and words[-1]:
            if len(words) == 3:
                break
            words.append(b"")
        elif not letter.isspace():
            raise ValueError("its header is damaged")
    return [int(word) for word in words], at


def write(values: np.ndarray, stream: BinaryIO) -> None:
    """uint16 (H, W, C) of one or three channels as PGM or PPM."""
    height, width, channels = values.shape
    stream.write(b"P%d\n%d %d\n65535\n" % (5 if channels == 1 else 6, width, height))
    stream.write(values.astype(">u2").tobytes())
