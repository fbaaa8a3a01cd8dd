"""Definition of ``high_pass`` in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def fake(picture: Tensor, side: int) -> Tensor:
    """The result without its values."""
    batch, height, width, _ = picture.shape
    return picture.new_empty((batch, -(-height // side), -(-width // side)), dtype=torch.float32)


def high_pass(picture: Tensor, side: int) -> Tensor:
    red, green, blue = picture.int().unbind(3)
    luma = (77 * red + 150 * green + 29 * blue + 32) >> 6
    for axis in (1, 2):
        luma = _with_neighbours(luma, axis, side)
    # (B, H, W, 3, 3): of each pixel those around it, itself in the middle
    distance = (9 * luma[..., 1, 1] - luma.sum((3, 4))).long().square()
    counts = torch.ones_like(distance)
    sums, counts = (_sums(_sums(values, 1, side), 2, side) for values in (distance, counts))
    return ((sums.double() / counts).sqrt() / (9 * 1020)).float()


def _with_neighbours(values: Tensor, axis: int, side: int) -> Tensor:
    """Values one before, at and one after each place of an axis, but of its own cell, side by side in a last axis."""
    length = values.shape[axis]
    place = torch.arange(length, device=values.device)
    first = place // side * side
    last = (first + side - 1).clamp(max=length - 1)
    around = ((place - 1).maximum(first), place, (place + 1).minimum(last))
    return torch.stack([values.index_select(axis, each) for each in around], dim=-1)


def _sums(values: Tensor, axis: int, side: int) -> Tensor:
    """Sums over cells along an axis."""
    length = values.shape[axis]
    sums = values.new_zeros([-(-n // side) if i == axis else n for i, n in enumerate(values.shape)])
    return sums.index_add_(axis, torch.arange(length, device=values.device) // side, values)
