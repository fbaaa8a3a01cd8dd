"""How a GPU's convolutions want their channels: in sixteens, which lie side by side at every pixel.

A map is (H, W, C), C a multiple of 16. A weight is (n * n, C, C'), C' a multiple of ``block_of`` itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 16  # channels
TILE = (8, 16)  # rows and columns of the pixels that a program computes together
ROWS = ("bias", "slope", "factor of skip", "factor of also", "factor of the sum")  # of an epilogue


def whole(channels: int) -> int:
    """Channels up to a multiple of 16."""
    return -(-channels // STEP) * STEP


def block_of(outputs: int) -> int:
    """Outputs of a program: 16, 32, 64, or 128 where they are whole blocks of that."""
    if outputs > 64 and outputs % 128 == 0:
        return 128
    return 16 if outputs <= 16 else 32 if outputs <= 32 else 64


def padded(outputs: int) -> int:
    """Outputs up to whole blocks."""
    block = block_of(outputs)
    return -(-outputs // block) * block


def tiles_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover an image."""
    return -(-height // TILE[0]), -(-width // TILE[1])


def pack_pixel_weight(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``weight`` float32 (C', C, n, n) -> the packed one, and float32 (C' padded): factors of what it gives.

    Each output's weights are multiplied by the power of two that brings the largest of them to 0.5..1, so that neither
    those of an image in 0..255, which are small, nor those of a scaled sum lose bits in float16; the factors take that
    back. Padding is zeros, its factors are ones.
    """
    outputs, inputs = weight.shape[:2]
    values = F.pad(weight.float(), (0, 0, 0, 0, 0, -inputs % STEP, 0, padded(outputs) - outputs))
    _, exponent = torch.frexp(values.abs().amax(dim=(1, 2, 3)))
    packed = torch.ldexp(values, -exponent[:, None, None, None]).permute(2, 3, 1, 0).flatten(0, 1)
    return packed.to(dtype).contiguous(), torch.ldexp(torch.ones_like(values[:, 0, 0, 0]), exponent)
