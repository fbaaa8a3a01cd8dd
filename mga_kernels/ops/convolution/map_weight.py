"""``pack_map_weight``: the weight of a convolution in the order in which ``convolve_maps_`` reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.layout import FEW_OUTPUTS, GROUP, groups_of
from ...errors import InputError
from ..grid import describe
from .on_cpu import on_cpu

_HALF = 0.5**0.5
# By m and n: what a kernel of n values is at the m + n - 1 positions of a tile.
POSITIONS = {
    (4, 3): [
        [1, 0, 0],
        [-2 / 3, -2 / 3 * _HALF, -1 / 3],
        [-2 / 3, 2 / 3 * _HALF, -1 / 3],
        [1 / 6, _HALF / 3, 1 / 3],
        [1 / 6, -_HALF / 3, 1 / 3],
        [0, 0, 1],
    ],
    (6, 3): [
        [1, 0, 0],
        [-2 / 9, -2 / 9, -2 / 9],
        [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45],
        [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180],
        [1 / 45, -1 / 90, 1 / 180],
        [0, 0, 1],
    ],
    (4, 5): [
        [1, 0, 0, 0, 0],
        [-2 / 9, -2 / 9, -2 / 9, -2 / 9, -2 / 9],
        [-2 / 9, 2 / 9, -2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45, 4 / 45, 8 / 45],
        [1 / 90, -1 / 45, 2 / 45, -4 / 45, 8 / 45],
        [4 / 45, 2 / 45, 1 / 45, 1 / 90, 1 / 180],
        [4 / 45, -2 / 45, 1 / 45, -1 / 90, 1 / 180],
        [0, 0, 0, 0, 1],
    ],
}


def pack_map_weight(weight: Tensor, tile: int = 0) -> Tensor:
    """``weight`` float32 (C', C, n, n) -> float32, flat. Missing channels up to a multiple of 8 are zeros.

    Of at most 4 outputs the values stand in the order of loops: tap (row, column), group of 8 inputs, output, input.
    Of more they stand in panels of 24, 16 or 8 outputs: panel, tap, input, output of the panel. ``tile`` 4 or 6 for
    n = 3, 4 for n = 5: with G = ``POSITIONS[tile, n]``, the taps are the positions (i, j) of G weight G^T, row by row;
    behind the panels stands the weight itself: tap, input, output.

    Raises InputError for other dtypes and shapes, and for tiles of other kernels.
    """
    op = "pack_map_weight"
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.dtype != torch.float32 or not weight.numel():
        raise InputError(f"{op}: weight must be float32 (C', C, n, n), got {describe(weight)}")
    if weight.shape[2] != weight.shape[3]:
        raise InputError(f"{op}: the kernel must be square, got {tuple(weight.shape)}")
    if tile and ((tile, weight.shape[2]) not in POSITIONS or weight.shape[0] <= FEW_OUTPUTS):
        raise InputError(
            f"{op}: tiles of 4 are for 3x3 and 5x5, of 6 for 3x3 kernels of more than {FEW_OUTPUTS} channels"
        )
    return OPERATOR(weight.contiguous(), int(tile))


def plain_map_weight(weight: Tensor) -> Tensor:
    """What stands behind the panels of a packed ``weight`` (C', C, n, n): tap, input, output, flat.

    ``convolve_maps_`` takes that alone for a layer in tiles, and transforms it at each call: an eighth of the memory
    of tiles of 6 for 3x3 kernels, for a time that only small images show.
    """
    padded = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, -len(weight) % GROUP))
    return padded.flatten(2).permute(2, 1, 0).flatten()


def panels(vectors: int) -> list[int]:
    """How many vectors of 8 outputs are computed together."""
    found = []
    while vectors:
        found.append(vectors if vectors <= 3 else 3 if vectors in (5, 7) else 2)
        vectors -= found[-1]
    return found


def unpack(packed: Tensor, inputs: int, outputs: int, size: int, tile: int) -> Tensor:
    """The weight (C', C, n, n) that was packed, or is plain."""
    channels, taps = groups_of(outputs) * GROUP, size * size
    if outputs <= FEW_OUTPUTS:
        loops = packed.view(taps, groups_of(inputs), outputs, GROUP).permute(2, 1, 3, 0)
        return loops.flatten(1, 2)[:, :inputs].unflatten(2, (size, size))
    if tile:
        loops = packed[-taps * inputs * channels :].view(taps, inputs, channels)
    else:
        parts = packed.split([taps * inputs * GROUP * width for width in panels(channels // GROUP)])
        loops = torch.cat([part.view(taps, inputs, -1) for part in parts], dim=2)
    return loops.permute(2, 1, 0)[:outputs].unflatten(2, (size, size))


def _reference(weight: Tensor, tile: int) -> Tensor:
    outputs, inputs = weight.shape[:2]
    if outputs <= FEW_OUTPUTS:
        padded = F.pad(weight, (0, 0, 0, 0, 0, -inputs % GROUP))
        return padded.unflatten(1, (-1, GROUP)).flatten(3).permute(3, 1, 0, 2).flatten()
    padded = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, -outputs % GROUP))
    taps = padded.flatten(2).permute(2, 1, 0)  # tap, input, output
    if tile:
        g = torch.tensor(POSITIONS[tile, weight.shape[2]], dtype=torch.float64)
        taps = torch.einsum("iy,jx,ocyx->ijco", g, g, padded.double()).float().flatten(0, 1)
    parts = taps.split([GROUP * width for width in panels(taps.shape[2] // GROUP)], dim=2)
    return torch.cat([*(part.flatten() for part in parts), *([plain_map_weight(weight)] if tile else [])])


def _fake(weight: Tensor, tile: int) -> Tensor:
    outputs, inputs, size, _ = weight.shape
    if outputs <= FEW_OUTPUTS:
        return weight.new_empty(size * size * groups_of(inputs) * GROUP * outputs)
    positions = size * size + ((tile + size - 1) ** 2 if tile else 0)
    return weight.new_empty(positions * inputs * groups_of(outputs) * GROUP)


OPERATOR = on_cpu("pack_map_weight", torch.float32, _reference, _fake)
