"""Regions of an image in pixel maps: their lists of tiles are made on the device, by few operators and in one graph.

The rule is that of ``cpu.regions``, along each axis by itself, since tiles are no squares here: a tile is computed if
it is within so many tiles of one in which a chosen cell lies, and becomes zeros if it is within some more. Cells need
not be whole tiles: of pictures only pixels of chosen cells are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...ops.convolve_pixels.layout import TILE, tiles_of
from ..cpu.regions import Given, Surroundings
from ..cpu.rows import Rows


class Around(NamedTuple):
    """Of a layer over a map ``scale`` times the image, in tiles of rows and of columns: how far around a cell it is
    computed, and how far from there on it is zero.
    """

    scale: int
    tiles: tuple[int, int]
    zeros: tuple[int, int]


class Listed(NamedTuple):
    """Tiles as ``convolve_pixels_`` takes them: int32 (n), and how many of them there are, int32 ()."""

    tiles: Tensor
    length: Tensor


class Lists(Protocol):
    """What chains in pixel maps ask of a grid's ``regions``.

    ``cells``: bool (rows, columns), those of ``cell`` pixels that pictures show, None for all. ``ends``: where the map
    is a raster of small images, the period of its rows and of its columns, the first pixel of an image, the ends of its
    rows and columns; beyond them maps hold zeros.
    """

    cell: int
    ends: tuple[int, ...]

    @property
    def cells(self) -> Tensor | None: ...

    def lists_of(self, rows: Rows, given: Given) -> Sequence[Listed] | None:
        """The list of each layer of a chain; None while calls are listed, and nothing is to run."""


@dataclass(frozen=True)
class Boxes:
    """Of layers over maps of one scale, of an image of one size: which cells are near to which rows of tiles, float32
    (2 layers, rows of tiles, rows of cells), near enough for what is computed and behind these for zeros; and of
    columns, (2 layers, columns of cells, columns of tiles). ``numbers``: int32 (2, tiles), of a tile that is computed
    and of one that becomes zeros.
    """

    rows: Tensor
    columns: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, around: Sequence[Around], side: int, image: tuple[int, int], cells: Tensor) -> Boxes:
        """``side``: of a cell in the maps, which have ``image`` pixels; ``cells``: (rows, columns) of them."""
        far = [each.tiles for each in around] + [each.zeros for each in around]
        down, across = (
            torch.stack([near(tiles, TILE[axis], reach[axis], cells.shape[axis], side) for reach in far])
            for axis, tiles in enumerate(tiles_of(*image))
        )
        number = torch.arange(down.shape[1] * across.shape[1], dtype=torch.int32)
        made = down, across.transpose(1, 2).contiguous(), torch.stack([number, -2 - number])
        return cls(*(each.to(cells.device) for each in made))

    def lists(self, cells: Tensor) -> list[Listed]:
        """Of each layer, row by row; ``cells``: bool (rows, columns)."""
        met = (self.rows @ cells.float() @ self.columns).flatten(1) > 0.5  # how many cells are near
        computed, written = met.chunk(2)
        return listed(written, torch.where(computed, self.numbers[0], self.numbers[1]))


def listed(wanted: Tensor, entries: Tensor) -> list[Listed]:
    """A list for each row of ``wanted``, bool (lists, n): of ``entries``, int32 (lists, n), those where it is true."""
    count, longest = wanted.shape
    place = wanted.cumsum(dim=1)
    lists = entries.new_empty(count, 1 + longest)  # the first takes what is not listed
    lists.scatter_(1, place * wanted, entries)
    lengths = place[:, -1].int()
    return [Listed(lists[i, 1:], lengths[i]) for i in range(count)]


def near(tiles: int, side: int, reach: int, cells: int, cell: int) -> Tensor:
    """float32 (tiles, cells) along an axis: 1 where a cell has pixels in a tile or in ``reach`` tiles around it."""
    first = (torch.arange(tiles)[:, None] - reach) * side
    start = torch.arange(cells) * cell
    return ((start < first + (2 * reach + 1) * side) & (start + cell > first)).float()


class PixelRegions(Surroundings):
    """``cells``: those chosen, bool (rows, columns), on the device; ``lists``: of the layers that are so far around."""

    ends = ()

    def __init__(self, cell: int, halo: int, run: Callable[[Surroundings], None]):
        super().__init__(cell, halo, run)
        axes = (self.extents_of(lambda rows, side=side: [side] * len(rows.stages)) for side in TILE)  # type: ignore[misc]
        self.around = [
            [Around(y.scale, (y.tiles, x.tiles), (y.zeros, x.zeros)) for y, x in zip(*both, strict=True)]
            for both in zip(*axes, strict=True)
        ]
        self._boxes: dict[tuple, list[tuple[list[Around], Boxes]]] = {}
        self.forget()

    def forget(self) -> None:
        """Let go of what was made for an image."""
        self.cells = torch.empty(0)
        self.lists: dict[Around, Listed] = {}

    def choose(self, cells: Tensor, height: int, width: int) -> None:
        self.cells, self.next = cells, 0
        self.lists = {
            each: listed
            for around, boxes in self._of_size((height, width), cells)
            for each, listed in zip(around, boxes.lists(cells), strict=True)
        }

    def _of_size(self, image: tuple[int, int], cells: Tensor) -> list[tuple[list[Around], Boxes]]:
        key = *image, *cells.shape, cells.device
        if key not in self._boxes:
            every = sorted({each for layers in self.around for each in layers})
            groups = [[each for each in every if each.scale == scale] for scale in sorted({each[0] for each in every})]
            self._boxes[key] = [
                (around, Boxes.of(around, scale * self.cell, (image[0] * scale, image[1] * scale), cells))
                for around in groups
                for scale in [around[0].scale]
            ]
        return self._boxes[key]

    def lists_of(self, rows: Rows, given: Given) -> list[Listed] | None:
        number = self.call(rows, given)
        return None if number is None else [self.lists[around] for around in self.around[number]]
