"""Which layers are computed in tiles, and how these fill the patches of a grid.

Tiles side by side over all of a grid have a share in two patches and in what lies between them: of 6 x 6 pixels, 7
apart, nearly half as many again are computed. Those that begin where a patch does, and fill it, compute nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...alone.layout import FEW_OUTPUTS
from .layers import Layer
from .rows import Slot
from .stages import Stage, part_of

FEW_INPUTS = {3: 4, 5: 2}  # by size: in tiles these would be transformed for less than they save
TILE, LARGE = 4, 6  # sides of the tiles of 3x3 kernels: ``large_tiles``
OF_5X5 = 4  # of those of 5x5 kernels, which round as the large ones of 3x3


class Filled(NamedTuple):
    """Tiles of side ``tile`` that fill ``patch`` x ``patch`` pixels of every ``step`` from ``inset`` on."""

    tile: int
    patch: int
    step: int
    inset: int

    @property
    def between(self) -> int:
        return self.step - self.patch


def tile_of(layer: Layer, stride: int, tile: int) -> int:
    """The side of the tiles in which a layer is computed, where 3x3 kernels are in those of ``tile``; 0 for none."""
    many = layer.epilogue.shape[1] > FEW_OUTPUTS or layer.shuffle > 1  # of which each phase fills whole groups
    if stride != 1 or not many or layer.inputs <= FEW_INPUTS.get(layer.size, 0):
        return 0
    return {3: tile, 5: OF_5X5 if tile == LARGE else 0}.get(layer.size, 0)


def filling(stage: Stage, slots: Mapping[str, Slot], side: int, tiles: Sequence[int]) -> Filled | None:
    """How a stage fills patches of ``side`` pixels, less what these have lost at their border when it has run.

    ``tiles``: the sides of tiles that there are, of which the first is that of other stages. None where no tiles fill
    them, or where there are fewer products in tiles side by side. ``side`` 0: there are no patches.
    """
    size = stage.layer.size
    sides = [found for tile in tiles if (found := tile_of(stage.layer, stage.stride, tile))]
    if not side or not sides:
        return None
    scale, inset = slots[part_of(stage.x)[0]].scale, slots[part_of(stage.out)[0]].inset // stage.factor
    patch, step = side * scale - 2 * inset, (side + 1) * scale
    work = {tile: _products(size, tile) for tile in sides if patch > 0 and patch % tile == 0}
    if not work or min(work.values()) >= _products(size, sides[0]) * (step / patch) ** 2:
        return None
    return Filled(min(work, key=work.__getitem__), patch, step, inset)


def _products(size: int, tile: int) -> float:
    """Of a kernel in such tiles, for each pixel, input and output."""
    return ((tile + size - 1) / tile) ** 2
