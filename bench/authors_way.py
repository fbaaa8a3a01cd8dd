"""The mask-guided steps in plain PyTorch calls over whole maps, the way that the method was first published.

Every step makes a map of the whole image: a two-channel softmax map, its pooled form, a 0/1 map of the selected cells,
and the unfolded feature and image, of which the selected columns are kept. Eager, in the dtype of the feature. Written
to be timed against, with the same results as the operators.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def predict_mask(
    feature: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, filters: Tensor, patch_size: int
) -> Tensor:
    """(B, C, H, W) -> mask (B, Hp, Wp); ``filters`` (25, 1, 1, 1) are those of the D-Conv, without bias."""
    batch, _, height, width = feature.shape
    rows, columns = height // patch_size, width // patch_size
    hidden = F.relu(F.conv2d(feature, weight1, bias1, padding=1))
    classes = torch.softmax(F.conv2d(hidden, weight2, bias2, padding=1), dim=1)
    probability = F.adaptive_avg_pool2d(classes, (rows, columns))[:, 1:]
    coefficients = F.conv2d(probability, filters).reshape(batch, 25, rows * columns)
    neighbours = F.unfold(probability, 5, padding=2)
    return (coefficients * neighbours).sum(dim=1).reshape(batch, rows, columns)


def select(mask: Tensor, k: int) -> Tensor:
    """(B, Hp, Wp) -> bool (B, Hp * Wp) with k cells set in each image."""
    flat = mask.flatten(1)
    chosen = torch.topk(flat, k, dim=1).indices
    return torch.zeros_like(flat).scatter_(1, chosen, 1.0) > 0


def cut(feature: Tensor, selected: Tensor, patch_size: int, halo: int) -> Tensor:
    """Patches (N, C, q, q) of the selected cells, of the unfolded feature."""
    side = patch_size + 2 * halo
    columns = F.unfold(F.pad(feature, (halo,) * 4), side, stride=patch_size).transpose(1, 2)  # (B, cells, C * q * q)
    image, cell = selected.nonzero(as_tuple=True)
    return columns[image, cell].reshape(-1, feature.shape[1], side, side)


def paste(image: Tensor, patches: Tensor, selected: Tensor) -> Tensor:
    """A new image, folded again after the selected cells were replaced."""
    side = patches.shape[-1]
    columns = F.unfold(image, side, stride=side).transpose(1, 2).contiguous()
    columns[selected.nonzero(as_tuple=True)] = patches.flatten(1)
    return F.fold(columns.transpose(1, 2), image.shape[-2:], side, stride=side)
