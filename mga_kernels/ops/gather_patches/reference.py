"""Definition of ``gather_patches`` in plain PyTorch; differentiable, any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..grid import check_inside


def memory_format(feature: Tensor) -> torch.memory_format:
    """The layout of the patches: that of the feature, told by its innermost axis."""
    channels_last = feature.shape[1] > 1 and feature.stride(1) == 1
    return torch.channels_last if channels_last else torch.contiguous_format


def fake(feature: Tensor, indices: Tensor, patch_size: int, halo: int) -> Tensor:
    """The result without its values."""
    side = patch_size + 2 * halo
    size = (indices.shape[0] * indices.shape[1], feature.shape[1], side, side)
    return torch.empty(size, dtype=feature.dtype, device=feature.device, memory_format=memory_format(feature))


def gather_patches(feature: Tensor, indices: Tensor, patch_size: int, halo: int) -> Tensor:
    batch, channels, height, width = feature.shape
    rows, columns = height // patch_size, width // patch_size
    side = patch_size + 2 * halo
    check_inside("gather_patches", indices, rows, columns)
    if indices.numel() == 0:
        return feature.new_empty((0, channels, side, side)).contiguous(memory_format=memory_format(feature))
    inside = (indices >= 0) & (indices < rows * columns)
    cell = indices.long() * inside
    offset = torch.arange(side, device=feature.device)
    y = (cell // columns * patch_size)[..., None, None] + offset[:, None]
    x = (cell % columns * patch_size)[..., None, None] + offset
    image = torch.arange(batch, device=feature.device)[:, None, None, None]
    padded = F.pad(feature, (halo, halo, halo, halo)).permute(0, 2, 3, 1)
    patches = padded[image, y, x].masked_fill(~inside[..., None, None, None], 0)  # (B, K, side, side, C)
    return patches.flatten(0, 1).permute(0, 3, 1, 2).contiguous(memory_format=memory_format(feature))
