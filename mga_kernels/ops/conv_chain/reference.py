"""Definition of ``conv_chain`` in plain PyTorch: one convolution after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_chain(
    patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int
) -> Tensor:
    states = [patches]
    for weight, bias, slope, skip in zip(weights, biases, slopes, skips, strict=True):
        result = F.conv2d(states[-1], weight, bias, padding=1)
        if skip >= 0:
            result = result + states[skip]
        slope = slope[:, None, None]
        states.append(torch.where(result > 0, result, result * slope))
    side = patches.shape[-1]
    return states[-1][..., crop : side - crop, crop : side - crop].contiguous(memory_format=torch.channels_last)
