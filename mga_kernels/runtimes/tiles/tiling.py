"""How an image is cut into overlapping tiles of one size, which then share the buffers of one plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...networks import SRNetwork

MOST_PARTS = 64  # along one axis, unless there is no other way to stay within memory
CONTEXT = 16  # LR pixels around tiles of a size that was asked for


class Cut(NamedTuple):
    """A tile along one axis: it starts at ``start``, and its result is used from ``first`` up to ``last``."""

    start: int
    first: int
    last: int


@dataclass(frozen=True)
class Tiling:
    """Tiles of ``height`` x ``width`` in LR pixels."""

    height: int
    width: int
    rows: tuple[Cut, ...]
    columns: tuple[Cut, ...]

    def __iter__(self) -> Iterator[tuple[Cut, Cut]]:
        return ((row, column) for row in self.rows for column in self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def pixels(self) -> int:
        """LR pixels of all tiles together, by which their time goes."""
        return len(self) * self.height * self.width


@dataclass(frozen=True)
class Overlap:
    """What tiles of a network must keep to.

    ``width``: LR pixels around what is used of a tile. ``multiple``: tiles start at its multiples, which are whole
    cells of ``cell`` pixels; so is what is used of them. ``smallest``: side of the smallest image of the network.
    """

    width: int
    multiple: int
    cell: int
    smallest: int

    @classmethod
    def of(cls, network: SRNetwork) -> Overlap | None:
        """None where a result depends on all of the image."""
        reach, p = network.reach, network.config.patch_size
        if reach.front is None:
            return None
        width = reach.front + max(reach.around, reach.refine or 0)
        return cls(width, math.lcm(p, reach.multiple), p, network.config.definition.minimum_size)

    @classmethod
    def at_most(cls, network: SRNetwork, width: int) -> Overlap:
        """With no more than ``width`` pixels of surroundings, also where the result depends on more of the image."""
        exact = cls.of(network)
        if exact is not None:
            return replace(exact, width=min(exact.width, width))
        p = network.config.patch_size
        return cls(width, math.lcm(p, network.reach.multiple), p, network.config.definition.minimum_size)

    @property
    def smallest_side(self) -> int:
        """The least side of a tile: a third of it is used, and in any case something."""
        return max(3 * self.width, 2 * self.width + self.cell + self.multiple, self.smallest)

    def cut(self, length: int, side: int) -> tuple[Cut, ...]:
        """Tiles of ``side`` over an axis of ``length``, which is ``side`` plus a multiple of ``multiple``.

        At the ends of the image tiles end as well, so that they see there what the whole image sees.
        """
        cuts: list[Cut] = []
        start = first = 0
        while start + side < length:
            last = (start + side - self.width) // self.cell * self.cell
            cuts.append(Cut(start, first, last))
            first, start = last, min((last - self.width) // self.multiple * self.multiple, length - side)
        return (*cuts, Cut(start, first, length))

    def sides(self, length: int) -> dict[int, tuple[Cut, ...]]:
        """Sides of tiles for an axis, with their cuts: the whole, and for each number of tiles the smallest side."""
        by_count = {1: length}
        least = self.smallest_side + (length - self.smallest_side) % self.multiple
        for side in range(length - self.multiple, least - 1, -self.multiple):
            count = len(self.cut(length, side))
            if count > MOST_PARTS and len(by_count) > 1:
                break
            by_count[count] = side
        return {side: self.cut(length, side) for side in by_count.values()}


def asked(network: SRNetwork, height: int, width: int, tile: int) -> Tiling | None:
    """Tiles of which about ``tile`` pixels a side are used, None where the image has no more."""
    overlap = Overlap.at_most(network, CONTEXT)

    def side(length: int) -> int:
        wanted = max(tile + 2 * overlap.width, overlap.smallest_side)
        return min(wanted + (length - wanted) % overlap.multiple, length)

    if max(height, width) <= tile:
        return None
    high, wide = side(height), side(width)
    found = Tiling(high, wide, overlap.cut(height, high), overlap.cut(width, wide))
    return found if len(found) > 1 else None


def tilings(overlap: Overlap, height: int, width: int) -> list[Tiling]:
    """Ways to cut an image, that with the least work first; tiles are nearly square or as long as the image."""
    rows, columns = overlap.sides(height), overlap.sides(width)
    pairs = {(side, width) for side in rows} | {(height, side) for side in columns}
    pairs |= {(side, min(columns, key=lambda other: abs(other - side))) for side in rows}
    pairs |= {(min(rows, key=lambda other: abs(other - side)), side) for side in columns}
    found = [Tiling(high, wide, rows[high], columns[wide]) for high, wide in pairs]
    return sorted((tiling for tiling in found if len(tiling) > 1), key=lambda tiling: (tiling.pixels, len(tiling)))
