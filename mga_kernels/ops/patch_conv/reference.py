"""Definition of ``patch_conv`` in plain PyTorch: gather, convolution, activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gather_patches.reference import gather_patches


def patch_conv(
    feature: Tensor, indices: Tensor, weight: Tensor, bias: Tensor, patch_size: int, halo: int, slope: float
) -> Tensor:
    patches = gather_patches(feature, indices, patch_size, halo)
    result = F.leaky_relu(F.conv2d(patches, weight, bias, padding=weight.shape[-1] // 2), slope)
    return result.contiguous(memory_format=torch.channels_last)
