"""Modules for photographs of more than 8 bits a channel: float32 from their values to those of the result."""

from __future__ import annotations

import torch
from torch import Tensor

from ...networks.layers import pad_by_reflection
from .modules import ModulePlanner


class DeepPlanner(ModulePlanner):
    """``network`` in float32; nothing is rounded on the way, as types of 16 bits and bytes would do."""

    pixel = torch.float32

    def given(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        values = pad_by_reflection(images.permute(0, 3, 1, 2) * self.network.value_range, *size)
        return values.to(self.input_dtype).contiguous(memory_format=torch.channels_last)

    def made(self, output: Tensor, size: tuple[int, int], gain: float = 1.0) -> Tensor:
        return (output[:, :, : size[0], : size[1]].float() * gain).clamp_(0, 1).permute(0, 2, 3, 1)
