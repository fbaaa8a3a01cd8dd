"""Rectangles in which cells of an image lie, so that running them with a halo around each takes little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WORSE = 1.25  # a cut that costs more than this is not followed, though what it leads to may cost less


@dataclass(frozen=True)
class Axis:
    """Cells of ``cell`` pixels over ``length`` pixels; what is run of them starts at multiples of ``unit``.

    It has ``halo`` pixels around it and at least ``smallest``, and ends where the image ends.
    """

    length: int
    cell: int
    unit: int
    halo: int
    smallest: int

    def run(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels [start, end) that are run for the cells [first, last)."""
        unit, least = self.unit, -(-self.smallest // self.unit) * self.unit
        start = np.maximum(first * self.cell - self.halo, 0) // unit * unit
        end = -(-(last * self.cell + self.halo) // unit) * unit
        end = np.minimum(np.maximum(end, start + least), self.length)
        start = np.minimum(start, np.maximum(end - least, 0) // unit * unit)
        return start, end


@dataclass(frozen=True)
class Rectangle:
    """Cells [top, bottom) x [left, right), and the pixels that are run for them, in the same form."""

    cells: tuple[int, int, int, int]
    pixels: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        top, bottom, left, right = self.pixels
        return bottom - top, right - left

    @property
    def part(self) -> tuple[slice, slice]:
        """The pixels of an image that are run."""
        top, bottom, left, right = self.pixels
        return slice(top, bottom), slice(left, right)


def covering(cells: np.ndarray, rows: Axis, columns: Axis, most: int) -> list[Rectangle]:
    """Rectangles that hold all ``cells``, bool (rows, columns), each of them with no more than ``most`` pixels to run
    where it has more than one cell.

    What is run is little, not the least: a rectangle is cut in two along the line that saves most, as long as that, or
    what it leads to, saves anything.
    """
    if not cells.any():
        return []
    return _Covering(cells, rows, columns, most).of(0, cells.shape[0], 0, cells.shape[1])[1]


class _Covering:
    def __init__(self, cells: np.ndarray, rows: Axis, columns: Axis, most: int):
        self.cells, self.axes, self.most = cells, (rows, columns), most

    def of(self, top: int, bottom: int, left: int, right: int) -> tuple[int, list[Rectangle]]:
        """Pixels to run, and the rectangles, for the cells that are chosen within these, of which there are some."""
        part = self.cells[top:bottom, left:right]
        high, wide = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
        top, bottom, left, right = top + high[0], top + high[-1] + 1, left + wide[0], left + wide[-1] + 1
        whole = self._rectangle(int(top), int(bottom), int(left), int(right))
        cost = whole.size[0] * whole.size[1]
        best, axis, at = min(self._cuts(whole.cells), default=(0, 0, 0))
        if not at or (cost <= self.most and best > WORSE * cost):
            return cost, [whole]
        first, second = list(whole.cells), list(whole.cells)
        first[2 * axis + 1] = second[2 * axis] = whole.cells[2 * axis] + at
        (one, ones), (other, others) = self.of(*first), self.of(*second)
        return (one + other, ones + others) if one + other < cost or cost > self.most else (cost, [whole])

    def _rectangle(self, *cells: int) -> Rectangle:
        sides = [
            axis.run(np.array(cells[i]), np.array(cells[i + 1])) for axis, i in zip(self.axes, (0, 2), strict=True)
        ]
        top, bottom, left, right = (int(edge) for side in sides for edge in side)
        return Rectangle((cells[0], cells[1], cells[2], cells[3]), (top, bottom, left, right))

    def _cuts(self, cells: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int]]:
        """(pixels to run, axis, cells before it) of the best cut along each axis, where there is one."""
        top, bottom, left, right = cells
        for axis, (first, other) in enumerate(((top, left), (left, top))):
            part = self.cells[top:bottom, left:right]
            part = part if axis == 0 else part.T
            if len(part) < 2:
                continue
            along, across = self.axes[axis], self.axes[1 - axis]
            before = _pixels(part, along, across, first, other)[:-1]
            after = _pixels(part[::-1], along, across, first, other, mirrored=True)[:-1][::-1]
            total = before + after
            yield int(total.min()), axis, int(total.argmin()) + 1


def _pixels(part: np.ndarray, along: Axis, across: Axis, first: int, other: int, mirrored: bool = False) -> np.ndarray:
    """For each n: pixels to run for what is chosen in the first n + 1 rows of ``part``, whose cells begin at ``first``
    and ``other`` of the two axes. ``mirrored``: its rows stand in the reverse order. 0 rows are never empty: the first
    row of a rectangle has a cell, and so has its last."""
    count, breadth = part.shape
    chosen = part.any(1)
    low = np.minimum.accumulate(np.where(chosen, part.argmax(1), breadth))
    high = np.maximum.accumulate(np.where(chosen, breadth - part[:, ::-1].argmax(1), 0))
    last = np.maximum.accumulate(np.where(chosen, np.arange(1, count + 1), 0))
    nothing = np.zeros_like(last)
    ends = (first + count - last, nothing + first + count) if mirrored else (nothing + first, first + last)
    lengths = [end - start for start, end in (along.run(*ends), across.run(other + low, other + high))]
    return lengths[0] * lengths[1]
