"""Definition of ``output_to_image`` in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def fake(output: Tensor, height: int, width: int, gain: float) -> Tensor:
    """The result without its values."""
    return output.new_empty((output.shape[0], height, width, 3), dtype=torch.uint8)


def output_to_image(output: Tensor, height: int, width: int, gain: float) -> Tensor:
    wide = output[..., :height, :width]
    wide = wide if wide.dtype == torch.float64 else wide.float()
    values = ((wide * gain).clamp(0, 1) * 255).round().nan_to_num(0)
    return values.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)
