"""Boxes of pixels around what is marked in an image: few, where few large ones are less work than many small ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Marks = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # first row and column, and those behind the last
MOST = 32  # boxes
CELL = 8  # pixels a side between which boxes are split


class Boxes(NamedTuple):
    """int64 (n, 2) both: of each box the first row and column, and those behind the last."""

    first: NDArray[np.int64]
    behind: NDArray[np.int64]

    def wider(self, pixels: int) -> Boxes:
        return Boxes(self.first - pixels, self.behind + pixels)

    def whole(self, side: int) -> Boxes:
        """All of each tile of which they have a part."""
        return Boxes(self.first // side * side, -(-self.behind // side) * side)

    def times(self, factor: int) -> Boxes:
        return Boxes(self.first * factor, self.behind * factor)

    def parts(self, factor: int) -> Boxes:
        """Of blocks of pixels, as numbers of blocks."""
        return Boxes(self.first // factor, -(-self.behind // factor))

    def joined(self, other: Boxes) -> Boxes:
        """The boxes around each and its counterpart."""
        return Boxes(np.minimum(self.first, other.first), np.maximum(self.behind, other.behind))

    def inside(self, height: int, width: int) -> Boxes:
        size = np.array([height, width])
        return Boxes(self.first.clip(0, size), self.behind.clip(0, size))

    def marks(self, down: int, across: int) -> Marks:
        found = np.zeros((down, across), dtype=bool)
        for (top, left), (bottom, right) in zip(self.first.tolist(), self.behind.tolist(), strict=True):
            found[top:bottom, left:right] = True
        return found


def boxes_of(marks: Marks, margin: float) -> Boxes:
    """Boxes that hold all that is marked, of which something is; each costs its pixels and those ``margin`` around."""
    height, width = marks.shape
    cells = np.zeros((-(-height // CELL) * CELL, -(-width // CELL) * CELL), dtype=bool)
    cells[:height, :width] = marks
    cells = any_of(cells.reshape(cells.shape[0] // CELL, CELL, -1, CELL), 1, 3)
    waiting: list[Box] = [_around(cells, 0, 0)]
    done: list[Box] = []
    while waiting:
        box = waiting.pop()
        parts = None if len(waiting) + len(done) + 2 > MOST else _split(cells, box, margin / CELL)
        if parts is None:
            done.append(box)
        else:
            waiting += parts
    pixels = [tuple(side * CELL for side in box) for box in done]
    tight = np.array([_around(marks[top:bottom, left:right], top, left) for top, left, bottom, right in pixels])
    return Boxes(tight[:, :2], tight[:, 2:])


def any_of(marks: Marks, *axes: int) -> Marks:
    return np.asarray(marks.any(axis=axes))


def _around(marks: Marks, top: int, left: int) -> Box:
    """The box around what is marked in a part that begins at ``top`` and ``left``."""
    rows, columns = np.flatnonzero(any_of(marks, 1)), np.flatnonzero(any_of(marks, 0))
    return top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1


def _split(cells: Marks, box: Box, margin: float) -> list[Box] | None:
    """Two boxes instead of one, where that is the least work; None where it is not less."""
    top, left, bottom, right = box
    inside = cells[top:bottom, left:right]
    best: list[Box] | None = None
    least = _work(box, margin)
    for axis, length in ((0, bottom - top), (1, right - left)):
        for at in _gaps(any_of(inside, 1 - axis), length):
            one, other = np.split(inside, [at], axis=axis)
            start = (top + at, left) if axis == 0 else (top, left + at)
            parts = [_around(one, top, left), _around(other, *start)]
            work = sum(_work(part, margin) for part in parts)
            if work < least:
                best, least = parts, work
    return best


def _gaps(used: Marks, length: int) -> list[int]:
    """Where to try: behind each gap, and in the middle."""
    begins = np.flatnonzero(used[1:] & ~used[:-1]) + 1
    return sorted({*begins.tolist(), length // 2} - {0})


def _work(box: Box, margin: float) -> float:
    top, left, bottom, right = box
    return (bottom - top + 2 * margin) * (right - left + 2 * margin)
