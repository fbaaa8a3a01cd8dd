"""Definition of ``mask_head`` in plain PyTorch; differentiable, any device, any floating dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fake(
    feature: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, patch_size: int, order: str
) -> Tensor:
    """The result without its values."""
    batch, _, height, width = feature.shape
    dtype = torch.float64 if feature.dtype == torch.float64 else torch.float32
    return feature.new_empty((batch, height // patch_size, width // patch_size), dtype=dtype)


def mask_head(
    feature: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, patch_size: int, order: str
) -> Tensor:
    hidden = F.relu(F.conv2d(feature, weight1, bias1, padding=1))
    scores = F.conv2d(hidden, weight2, bias2, padding=1)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if scores.shape[1] == 1:
        return F.leaky_relu(F.avg_pool2d(scores, patch_size), 0.1)[:, 0]
    if order == "softmax-then-pool":
        return F.avg_pool2d(torch.softmax(scores, dim=1), patch_size)[:, 1]
    return torch.softmax(F.avg_pool2d(scores, patch_size), dim=1)[:, 1]
