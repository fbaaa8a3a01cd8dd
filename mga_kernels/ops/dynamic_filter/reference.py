"""Definition of ``dynamic_filter`` in plain PyTorch; differentiable, any device, any floating dtype."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def fake(probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The result without its values."""
    return probability.new_empty(probability.shape)


def dynamic_filter(probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    batch, rows, columns = probability.shape
    size = round(weight.shape[0] ** 0.5)
    dtype = probability.dtype
    filters = F.conv2d(source.to(dtype), weight.to(dtype), bias.to(dtype))
    neighbours = F.unfold(probability[:, None], size, padding=size // 2)
    return (filters * neighbours.reshape(batch, size * size, rows, columns)).sum(dim=1)
