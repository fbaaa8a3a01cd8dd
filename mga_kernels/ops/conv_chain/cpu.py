"""``conv_chain`` on a CPU: the convolutions are oneDNN's, a few patches at a time, so that states stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PATCHES_AT_ONCE = 128  # 1.2 MB of states at 64 channels of 6x6; smaller parts pay for the calls


def conv_chain(
    patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int
) -> Tensor:
    channels_last = torch.channels_last
    layers = [weight.contiguous(memory_format=channels_last) for weight in weights]
    side = patches.shape[-1]
    inside = slice(crop, side - crop)
    parts = []
    for part in patches.contiguous(memory_format=channels_last).split(PATCHES_AT_ONCE):
        states = [part]
        for weight, bias, slope, skip in zip(layers, biases, slopes, skips, strict=True):
            result = F.conv2d(states[-1], weight, bias, padding=1)
            if skip >= 0:
                result.add_(states[skip])
            states.append(F.prelu(result, slope))
        parts.append(states[-1][..., inside, inside])
    return torch.cat(parts).contiguous(memory_format=channels_last)
