"""Definition of ``filter_and_select``: the two operators one after the other."""

from __future__ import annotations

from torch import Tensor

from ..dynamic_filter import reference as filtering
from ..select_patches import reference as selection


def fake(
    probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, k: int, order: str, seed: int
) -> tuple[Tensor, Tensor]:
    """The results without their values."""
    mask = filtering.fake(probability, source, weight, bias)
    return mask, selection.fake(mask, k, order, seed)


def filter_and_select(
    probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, k: int, order: str, seed: int
) -> tuple[Tensor, Tensor]:
    mask = filtering.dynamic_filter(probability, source, weight, bias)
    return mask, selection.select_patches(mask.detach(), k, order, seed)
