"""The picture of a PNG file: its rows filtered and packed, a piece of them on each processor.

Where one processor does it, a result of 3840x2160 waits half as long for that as for its network. The rows have the
filters that Pillow chooses. What is left of them in pictures that a network made larger is mostly noise: to look for
runs of one byte there, and for no other repetition, takes a third of the time and makes most files no larger. Drawings
and texts it would make much larger, so each piece begins with a trial of a few rows, which decides if they are noise.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np

from ..system.threads import processors

PIECE = 1 << 20  # bytes of rows that are packed without what stands before them; in smaller ones that shows in the size
_CACHED = 1 << 17  # bytes of rows that are filtered at a time
_TRIED = 1 << 15  # of those that are tried
_FILTERS = np.array([[0], [2], [1], [4]], np.uint8)  # none, up, sub and Paeth; of those that are as good, the first
_MODULUS = 65521  # of Adler-32
_LARGER = 1.01  # times as large as with all repetitions a trial may be with runs alone
_NOISE = 0.1  # to this share of themselves, no less, rows are packed that are noise


def packed(values: np.ndarray, level: int) -> Iterator[bytes]:
    """Pixels uint8 (H, W, C) as the data of IDAT chunks: one zlib stream, the same on any number of processors."""
    rows = max(1, PIECE // values[0].nbytes)
    starts = range(0, len(values), rows)
    before, checksum = zlib.compress(b"", level)[:2], 1
    with ThreadPoolExecutor(min(processors(), len(starts)), "mga-png") as pool:
        for data, adler, size in pool.map(lambda start: _piece(values, start, rows, level), starts):
            checksum = joined(checksum, adler, size)
            yield before + data
            before = b""
    yield checksum.to_bytes(4, "big")


def _piece(values: np.ndarray, start: int, rows: int, level: int) -> tuple[bytes, int, int]:
    """``rows`` from ``start`` on: what they are packed to, and the checksum and the number of their filtered bytes."""
    end, step = min(start + rows, len(values)), max(1, _CACHED // values[0].nbytes)
    few = max(1, _TRIED // values[0].nbytes)
    data, checksum, size = [], 1, 0
    for first, last in itertools.pairwise([start, *range(start + few, end, step), end]):
        filtered = _filter(values[max(first - 1, 0) : last], first == 0).data
        checksum, size = zlib.adler32(filtered, checksum), size + filtered.nbytes
        if first == start:
            packer, begun = _tried(filtered, level)
            data.append(begun)
        else:
            data.append(packer.compress(filtered))
    # A full flush ends on a whole byte, and nothing behind it refers to what is before.
    data.append(packer.flush(zlib.Z_FINISH if end == len(values) else zlib.Z_FULL_FLUSH))
    return b"".join(data), checksum, size


def _tried(rows: memoryview, level: int) -> tuple[Any, bytes]:
    """What packs the first rows of a piece best, and these packed."""
    packers = [zlib.compressobj(level, wbits=-zlib.MAX_WBITS, strategy=how) for how in (zlib.Z_FILTERED, zlib.Z_RLE)]
    usual, runs = (packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH) for packer in packers)
    are_runs = _NOISE * rows.nbytes <= len(runs) <= _LARGER * len(usual)
    return (packers[1], runs) if are_runs else (packers[0], usual)


def _filtered(values: np.ndarray, top: bool) -> np.ndarray:
    """Rows with their filters: of all but the first of ``values``, which is above them, or of all that are at the top.

    The filter of each row is the one that makes the smallest sum of its bytes, taken as -128 to 127.
    """
    _, width, channels = values.shape
    rows = len(values) - (not top)
    padded = np.zeros((rows + 1, width + 1, channels), np.uint8)
    padded[top:, 1:] = values
    flat = padded.reshape(rows + 1, -1)
    x, left = flat[1:, channels:], flat[1:, :-channels]
    up, beyond = flat[:-1, channels:], flat[:-1, :-channels]
    found = np.empty((len(_FILTERS), rows, 1 + x.shape[1]), np.uint8)
    found[:, :, 0] = _FILTERS
    found[0, :, 1:] = x
    for place, guess in enumerate((up, left, _paeth(left, up, beyond)), 1):
        np.subtract(x, guess, out=found[place, :, 1:])
    sums = np.abs(found[:, :, 1:].view(np.int8)).view(np.uint8).sum(axis=2, dtype=np.uint64)
    return found[sums.argmin(axis=0), np.arange(rows)]


def _paeth(left: np.ndarray, up: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Of three neighbours the one next to ``left + up - beyond``; of those as near, the first."""
    by_left, by_up = np.subtract(up, beyond, dtype=np.int16), np.subtract(left, beyond, dtype=np.int16)
    by_beyond = np.abs(by_left + by_up)
    by_left, by_up = np.abs(by_left, out=by_left), np.abs(by_up, out=by_up)
    is_left = (by_left <= by_up) & (by_left <= by_beyond)
    return np.where(is_left, left, np.where(by_up <= by_beyond, up, beyond))


def _of_build() -> Callable[[np.ndarray, bool], np.ndarray]:
    """``_filtered`` as the build made it, which takes a tenth of the time."""
    try:
        return import_module("mga_kernels._host").filtered_rows
    except (ImportError, AttributeError):  # not built, or by an older build
        return _filtered


_filter = _of_build()


def joined(first: int, second: int, size: int) -> int:
    """The Adler-32 of bytes with that of ``first`` and behind them ``size`` ones with that of ``second``."""
    (high, low), (more_high, more_low) = divmod(first, 1 << 16), divmod(second, 1 << 16)
    high = (high + more_high + size * (low - 1)) % _MODULUS
    return high << 16 | (low + more_low - 1) % _MODULUS
