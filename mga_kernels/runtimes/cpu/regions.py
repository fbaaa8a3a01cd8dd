"""Regions of an image: chains over whole images are run around chosen cells only, in the tiles of float maps.

What is wanted of the last layer are the cells. Each layer before it is computed as far around them as those behind it
look, but at most ``halo`` pixels of the image, and in whole tiles; beyond these it is zero, as beyond an image. Cells
that touch share what is around them. Where the halo covers all that the network sees of an image, cells are what the
whole image would give; nothing else that is in the maps has a part in them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ...records import LayerRecord
from .rows import Rows, Use, reads, written
from .stages import part_of
from .storage import Stored

Given = Mapping[str, Stored | Tensor]
Marks = NDArray[np.bool_]


class Extent(NamedTuple):
    """Of a layer in tiles of ``side`` pixels of a map ``scale`` times the image: it is computed within ``tiles`` tiles
    of a cell, and is zero from there on within ``zeros``.
    """

    side: int
    scale: int
    tiles: int
    zeros: int


class _Look(NamedTuple):
    """What a layer looks at: ``wanted`` pixels around the cells count, and ``seen`` are read.

    ``least``: where the halo ends before what is wanted does, so far the layer itself is computed. What it looks at may
    not end nearer to the cells: of zeros in its place a layer would make its bias, where there should be zeros.
    """

    use: Use
    wanted: int
    seen: int
    least: int


class Surroundings(ABC):
    """How far around cells of ``cell`` pixels each layer is computed, of the chains that ``run`` calls one after the
    other, over a grid whose ``regions`` this is. ``choose`` says for which cells, before ``run`` is called again."""

    apart = False  # layers may write over what others have made

    def __init__(self, cell: int, halo: int, run: Callable[[Surroundings], None]):
        """InputError where a layer needs the whole image."""
        self.cell, self.halo, self.next = cell, halo, 0
        self.calls: list[tuple[Rows, dict[str, int]]] = []
        self._listing = True
        run(self)
        self._listing = False

    @abstractmethod
    def choose(self, cells: Tensor, height: int, width: int) -> None:
        """``cells``, bool (rows, columns), of an image of ``height`` x ``width`` pixels."""

    @abstractmethod
    def forget(self) -> None:
        """Let go of what was made for an image."""

    def call(self, rows: Rows, given: Given) -> int | None:
        """Which of the calls a chain's is; None while they are listed, and nothing is to run."""
        if self._listing:
            if any(stage.stride != 1 or stage.measure for stage in rows.stages):
                raise InputError("regions: a layer with a stride or sums over the image needs the whole image")
            self.calls.append((rows, {name: given[name].data.data_ptr() for name in rows.external}))
            return None
        number, self.next = self.next, self.next + 1
        return number

    def extents_of(self, sides: Callable[[Rows], Sequence[int]]) -> list[list[Extent]]:
        """By call and layer, along one axis, along which the tiles of a chain's layers have these ``sides``.

        From the last layer to the first.
        """
        looks: list[_Look] = []
        found: list[list[Extent]] = [[] for _ in self.calls]
        for call in reversed(range(len(self.calls))):
            rows, external = self.calls[call]

            def of_all(use: Use, call: int = call, external: dict[str, int] = external) -> Use:
                """With a name of its slot that no other call has for another map."""
                return use._replace(slot=f"{external.get(use.slot, call)} {'' if use.slot in external else use.slot}")

            for stage, side in zip(reversed(rows.stages), reversed(sides(rows)), strict=True):
                scale, out = rows.slots[part_of(stage.x)[0]].scale, of_all(written(stage))
                later = [look for look in looks if look.use.meets(out)]
                wanted = math.ceil(max((look.wanted for look in later), default=0) / stage.factor)
                limit = math.ceil(max((look.least for look in later), default=0) / stage.factor)
                limit = max(limit, scale * self.halo)
                tiles = math.ceil(min(wanted, limit) / side)
                least = tiles * side if tiles * side < wanted else 0
                seen = max((look.seen for look in later), default=0)
                zeros = max(tiles, math.ceil(seen / (stage.factor * side)))
                found[call].insert(0, Extent(side, scale, tiles, zeros))
                for use in reads(stage):
                    looks.append(_Look(of_all(use), (least or wanted) + use.reach, tiles * side + use.reach, least))
        return found


class Regions(Surroundings):
    """In float maps, whose tiles are squares, of which cells are whole ones."""

    def __init__(self, cell: int, halo: int, run: Callable[[Surroundings], None]):
        """InputError where cells are not whole tiles, or where a layer needs the whole image."""
        super().__init__(cell, halo, run)
        self.extents = self.extents_of(lambda rows: rows.sides)
        self._named: dict[int, list[LayerRecord]] = {}  # of a call, with the numbers of its lists
        self.forget()

    def forget(self) -> None:
        self.cells = np.zeros((0, 0), dtype=bool)
        self.lists: dict[Extent, tuple[Tensor, Tensor]] = {}
        self._marks: dict[tuple[int, int], dict[int, Marks]] = {}  # by side and scale, and how far around the cells

    def choose(self, cells: Tensor, height: int, width: int) -> None:
        self.forget()
        self.cells, self.size, self.next = cells.numpy(), (height, width), 0

    def lists_of(
        self, rows: Rows, given: Given, records: Sequence[LayerRecord]
    ) -> tuple[list[LayerRecord], list[Tensor], None] | None:
        """The records of a chain, the lists that they name, and maps for its slots where it is not to work in those of
        its grid (``changes.KeptMaps``); None while calls are listed, and nothing is to run.
        """
        number = self.call(rows, given)
        if number is None:
            for stage, side in zip(rows.stages, rows.sides, strict=True):
                if self.cell * rows.slots[part_of(stage.x)[0]].scale % side:
                    raise InputError(f"regions: cells of {self.cell} pixels are not whole tiles of {side}")
            return None
        extents = self.extents[number]
        for extent in sorted(dict.fromkeys(extents), key=lambda extent: extent.tiles):
            self._lists(extent)
        lists = [one for extent in dict.fromkeys(extents) for one in self._lists(extent)]
        if number not in self._named:
            numbers = {extent: 2 * i for i, extent in enumerate(dict.fromkeys(extents))}
            self._named[number] = [
                replace(record, tiles=numbers[extent], zeros=numbers[extent] + 1 if extent.zeros > extent.tiles else -1)
                for record, extent in zip(records, extents, strict=True)
            ]
        return self._named[number], lists, None

    def _lists(self, extent: Extent) -> tuple[Tensor, Tensor]:
        """Numbers of tiles, int32: those that are computed, and those that become zeros."""
        if extent not in self.lists:
            computed = self._tiles_within(extent, extent.tiles)
            wider = self._tiles_within(extent, extent.zeros)
            self.lists[extent] = _numbers(computed), _numbers(wider & ~computed)
        return self.lists[extent]

    def _tiles_within(self, extent: Extent, tiles: int) -> Marks:
        """Those that are no further from a cell, made of those that are less far."""
        known = self._marks.setdefault((extent.side, extent.scale), {})
        if not known:
            height, width = (-(-extent.scale * length // extent.side) for length in self.size)
            each = extent.scale * self.cell // extent.side
            known[0] = self.cells.repeat(each, 0).repeat(each, 1)[:height, :width]
        if tiles not in known:
            nearest = max(one for one in known if one < tiles)
            known[tiles] = _within(known[nearest], tiles - nearest)
        return known[tiles]


def _within(chosen: Marks, tiles: int) -> Marks:
    """What is no further than so many tiles from one of ``chosen``, along both axes."""
    for _ in range(2):
        chosen, reached = chosen.T, 0
        while reached < tiles:
            step = min(2 * reached + 1, tiles - reached)  # further, there would be gaps
            wider = chosen.copy()
            wider[step:] |= chosen[:-step]
            wider[:-step] |= chosen[step:]
            chosen, reached = wider, reached + step
    return chosen


def _numbers(chosen: Marks) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen).astype(np.int32))
