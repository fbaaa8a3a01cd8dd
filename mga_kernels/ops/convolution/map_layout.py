"""Float maps: the layout in which the CPU convolves in float32, csrc/maps/layout.h in Python.

A map is float32 (H, groups, pitch, 8): channel 8 g + i of pixel (y, x) is ``map[y, g, 4 + x, i]``. Channels up to a
multiple of 8, and pixels before the first and behind the last, are zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GROUP = 8  # channels
BEFORE = 4  # pixels of zeros
COLUMNS = 12  # whole tiles of 4 and of 6
FEW_OUTPUTS = 4  # of which no panels are made

# The parts of a 9x9 kernel of at most 3 outputs: what its block (i, j), of rows from 3 i and columns from 3 j on, makes
# as a 3x3 kernel, stands in these channels of a map.
PART_CHANNELS = 32
PARTS = (
    ((0, 1, 2), (4, 5, 6), (24, 25, 26)),
    ((8, 9, 10), (12, 13, 14), (28, 29, 30)),
    ((16, 17, 18), (20, 21, 22), (19, 23, 27)),
)


def map_pitch(width: int) -> int:
    """Pixels from a group of a row to the next."""
    return -(-width // COLUMNS) * COLUMNS + 2 * BEFORE


def groups_of(channels: int) -> int:
    return -(-channels // GROUP)


def empty_map(
    channels: int, height: int, width: int, prepare: Callable[[Tensor], object] = lambda data: None
) -> Tensor:
    """A map of zeros. ``prepare`` is given its memory before anything is written there."""
    data = torch.empty(height, groups_of(channels), map_pitch(width), GROUP, dtype=torch.float32)
    prepare(data)
    return data.zero_()


def is_picture(tensor: Tensor) -> bool:
    """Whether a tensor that a layer ends in is pictures (n, h, w, 3), uint8 or float32, and no map or planes."""
    return tensor.dtype == torch.uint8 or (tensor.ndim == 4 and tensor.shape[3] == 3)


def inner(data: Tensor, height: int, width: int) -> Tensor:
    """View (groups, 8, height, width) of the pixels of an image in a map."""
    return data[:height, :, BEFORE : BEFORE + width].permute(1, 3, 0, 2)


def read(data: Tensor, height: int, width: int, channel: int, channels: int) -> Tensor:
    """float32 (channels, height, width), from ``channel``, a multiple of 8, on."""
    part = inner(data, height, width)[channel // GROUP : channel // GROUP + groups_of(channels)]
    return part.flatten(0, 1)[:channels]


def write(data: Tensor, values: Tensor, channel: int = 0) -> None:
    """Fill from (channels, h, w), from ``channel`` on, with zeros up to a multiple of 8 channels."""
    channels, height, width = values.shape
    groups = groups_of(channels)
    part = inner(data, height, width)[channel // GROUP : channel // GROUP + groups]
    whole = channels // GROUP
    part[:whole].copy_(values[: whole * GROUP].unflatten(0, (whole, GROUP)))
    if whole < groups:
        part[whole, : channels - whole * GROUP].copy_(values[whole * GROUP :])
        part[whole, channels - whole * GROUP :].zero_()
