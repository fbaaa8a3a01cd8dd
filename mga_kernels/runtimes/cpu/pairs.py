"""Pair planes: the layout in which the CPU convolves in bf16, and layers packed for it (csrc/convolution/layout.h).

A vector holds 16 pixels of two channels, so the number of channels need not be a multiple of the vector width, which
costs other layouts up to a quarter of their arithmetic at 50 channels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.rooms import Room
from ...networks.layers import Place
from ...ops import pack_pair_weight, pair_grid_scale_, pair_grid_statistics
from ...ops.convolution.layout import VECTOR, pitch, pixels
from ...records import FrameRecord
from .layers import Conv, Layer
from .storage import Spare, Stored

if TYPE_CHECKING:
    from .changes import Changes
    from .regions import Surroundings


def forced_backend() -> str | None:
    """The backend that MGA_BACKEND forces instead of the kernels of the library."""
    forced = os.environ.get("MGA_BACKEND")
    return forced if forced and forced != "cpu" else None


class Planes(Stored):
    """``data`` bf16 (ceil(channels / 2), height + 2, pitch, 2): pairs of channels with a border of zeros."""

    step = 2

    def __init__(self, channels: int, height: int, width: int):
        super().__init__(channels, height, width)
        self.data = torch.zeros(math.ceil(channels / 2), height + 2, pitch(width), 2, dtype=torch.bfloat16)

    @property
    def groups(self) -> int:
        return self.data.shape[0]

    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        return pixels(self.data, height or self.height, width or self.width)

    def statistics(self, grid: Grid) -> Tensor:
        sums = pair_grid_statistics(self.data, self.groups, grid.count, *grid.size, grid.across)
        return sums[..., : self.channels]

    def rescale(
        self, grid: Grid, x: Stored, factors: Tensor, offsets: Tensor, skip: Stored | None, slope: float
    ) -> None:
        missing = (0, x.channels % 2)
        factors, offsets = (F.pad(values, missing).contiguous() for values in (factors, offsets))
        skipped = None if skip is None else skip.data
        pair_grid_scale_(self.data, x.data, skipped, factors, offsets, *grid.size, grid.across, slope)


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer prepared for ``pair_chain_``: weights in bf16, in the library's own order; ``epilogue`` (3, C)."""

    weight: Tensor
    epilogue: Tensor


_packed: WeakKeyDictionary[Layer, Packed] = WeakKeyDictionary()


def to_bfloat16_with_sums(weight: Tensor) -> Tensor:
    """(C', C, n, n) -> bfloat16, of which each kernel has nearly the sum that it had: what flat areas are made of.

    What rounding a tap leaves is added to the next one, from the largest taps on to the smallest, whose own rounding is
    all that is left. Rounded by themselves, the taps of FSRCNN move a flat colour by 5 levels of 255, so by 3.
    """
    taps = weight.double().flatten(2)
    rounded, left = torch.empty_like(taps, dtype=torch.bfloat16), torch.zeros_like(taps[..., 0])
    for tap in taps.abs().mean((0, 1)).argsort(descending=True).tolist():
        wanted = taps[..., tap] + left
        rounded[..., tap] = wanted
        left = wanted - rounded[..., tap]
    return rounded.view_as(weight).contiguous()


def pack(layer: Layer) -> Packed:
    """The layer, which several chains may have, packed once.

    One or three channels stay as they are where ``floats``; in pairs a channel of zeros joins an odd number.
    """
    if layer not in _packed:
        outputs, shuffled = layer.epilogue.shape[1], layer.shuffle**2
        missing = 0 if layer.floats and outputs in (1, 3) else outputs // shuffled % 2 * shuffled
        weight = torch.empty(0, dtype=torch.bfloat16)
        if isinstance(layer, Conv):
            weight = to_bfloat16_with_sums(F.pad(layer.weight, (0, 0, 0, 0, 0, 0, 0, missing)))
            weight = pack_pair_weight(weight, layer.shuffle, layer.phased)
        _packed[layer] = Packed(weight, F.pad(layer.epilogue, (0, missing)).contiguous())
    return _packed[layer]


@dataclass
class Rooms:
    """Maps by their rooms, which chains over one grid share; and those of denser grids.

    ``spare``: memory in which they are made as far as it goes, in the place of memory of their own.
    """

    maps: dict[Room, Tensor] = field(default_factory=dict)
    denser: dict[tuple[int, int], Rooms] = field(default_factory=dict)
    spare: Spare | None = None
    lent: dict[tuple[int, ...], Rooms] = field(default_factory=dict)

    def of(self, size: tuple[int, int]) -> Rooms:
        return self.denser.setdefault(size, Rooms())

    def within(self, planes: Sequence[Stored]) -> Rooms:
        """Those in the memory of planes that are not in use meanwhile."""
        key = tuple(one.data.data_ptr() for one in planes)
        if key not in self.lent:
            self.lent[key] = Rooms(spare=Spare(planes))
        return self.lent[key]


class Grid:
    """``count`` patches of ``height`` x ``width`` pixels, ``across`` in a row, with one pixel of zeros between them.

    A whole image is one patch. ``place``: where it is a tile of a larger one. ``rooms``: what chains over it work in,
    which grids of fewer patches have in common.
    """

    place: Place | None = None
    regions: Surroundings | Changes | None = None  # where chains in maps run, None for all of the image

    def __init__(self, count: int, size: tuple[int, int], across: int = 1, rooms: Rooms | None = None):
        self.count, self.size, self.across = count, size, across
        self.down = math.ceil(count / across)
        self.height, self.width = self.down * (size[0] + 1) - 1, across * (size[1] + 1) - 1
        self.rooms = rooms or Rooms()
        self._masks: dict[tuple[int, int], tuple[Tensor, Tensor] | None] = {}
        self._denser: dict[tuple[int, int], Grid] = {}
        self._tiles: dict[tuple[int, int, int], Tensor | None] = {}

    @property
    def is_image(self) -> bool:
        return self.down * self.across == 1

    @property
    def side(self) -> int:
        """Of square patches, 0 where it has no such."""
        return self.size[0] if not self.is_image and self.size[0] == self.size[1] else 0

    def mask(self, scale: int = 1, inset: int = 0) -> tuple[Tensor, Tensor] | None:
        """Lanes int16 and rows uint8 of the pixels of patches enlarged ``scale`` times, less ``inset`` at their border.

        None where that is all of them.
        """
        key = scale, inset
        if key not in self._masks:
            self._masks[key] = self._mask(scale, inset) if inset or not self.is_image else None
        return self._masks[key]

    def _mask(self, scale: int, inset: int) -> tuple[Tensor, Tensor]:
        rows, columns = (self._inside(side, scale, inset) for side in self.size)
        return (
            lanes(columns.repeat(self.across)[: self.width * scale]),
            rows.repeat(self.down)[: self.height * scale].to(torch.uint8),
        )

    def _inside(self, side: int, scale: int, inset: int) -> Tensor:
        place = torch.arange((side + 1) * scale)
        return (place >= inset) & (place < side * scale - inset)

    def tiles(self, side: int, scale: int = 1, inset: int = 0) -> Tensor | None:
        """Numbers int32 of the tiles of ``side`` pixels in which pixels of patches enlarged ``scale`` times may lie.

        Less ``inset`` at their border. None where that is all of them.
        """
        key = side, scale, inset
        if key not in self._tiles:
            rows, columns = (
                np.logical_or.reduceat(inside, np.arange(0, len(inside), side))
                for inside in (
                    self._inside(self.size[0], scale, inset).repeat(self.down)[: self.height * scale].numpy(),
                    self._inside(self.size[1], scale, inset).repeat(self.across)[: self.width * scale].numpy(),
                )
            )
            met = rows[:, None] & columns
            self._tiles[key] = None if met.all() else torch.from_numpy(np.flatnonzero(met).astype(np.int32))
        return self._tiles[key]

    def frame(self, scale: int, inset: int) -> FrameRecord:
        """The size, and where the pictures of the patches are."""
        step_y, step_x = ((side + 1) * scale for side in self.size)
        return FrameRecord(self.height, self.width, self.across, step_y, step_x, inset)

    def patches(self, planes: Stored, first: int, groups: int, scale: int = 1) -> Tensor:
        """View (down, across, groups, step, height, width) of all places of the grid, enlarged ``scale`` times."""
        pixels = planes.inner()
        group, row, pixel, one = pixels.stride()
        height, width = (side * scale for side in self.size)
        steps = scale * (self.size[0] + 1) * row, scale * (self.size[1] + 1) * pixel
        shape = self.down, self.across, groups, planes.step, height, width
        return planes.data.as_strided(shape, (*steps, group, one, row, pixel), pixels.storage_offset() + first * group)

    def load(self, planes: Stored, patches: Tensor) -> None:
        """``patches`` (count, C, height, width) to their places; zeros in those that are left."""
        missing = self.down * self.across - self.count, planes.step * planes.groups - patches.shape[1]
        patches = F.pad(patches, (0, 0, 0, 0, 0, missing[1], 0, missing[0]))
        patches = patches.unflatten(1, (-1, planes.step)).unflatten(0, (self.down, self.across))
        self.patches(planes, 0, planes.groups).copy_(patches)

    def denser(self, size: tuple[int, int]) -> Grid:
        """As many patches of another size."""
        if size not in self._denser:
            self._denser[size] = Grid(self.count, size, self.across, self.rooms.of(size))
        return self._denser[size]


def lanes(columns: Tensor) -> Tensor:
    """int16 (ceil(W / 16)): one bit for each of the booleans (W)."""
    bits = F.pad(columns.int(), (0, -len(columns) % VECTOR)).reshape(-1, VECTOR)
    words = (bits << torch.arange(VECTOR, dtype=torch.int32)).sum(dim=1)
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)
