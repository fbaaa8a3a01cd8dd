"""Maps as tensors, in the layout of ``alone.layout``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...alone.layout import BEFORE, GROUP, groups_of, map_pitch
from ...errors import InputError
from ..grid import describe


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


def check_map(op: str, name: str, data: Tensor, groups: int, height: int, width: int) -> None:
    """Raise InputError where ``data`` is no map with room for so many groups of an image."""
    fits = data.dtype == torch.float32 and data.ndim == 4 and data.shape[3] == GROUP and data.is_contiguous()
    if not fits or data.shape[0] < height or not 1 <= groups <= data.shape[1] or data.shape[2] < map_pitch(width):
        raise InputError(
            f"{op}: {name} must be a map, float32 (rows, groups, pitch, 8), contiguous, with room for {groups} groups "
            f"of {height}x{width}, got {describe(data)}"
        )


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
