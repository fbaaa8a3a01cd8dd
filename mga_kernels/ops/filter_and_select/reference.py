"""Definition of ``filter_and_select``: the two operators one after the other."""

from __future__ import annotations

from torch import Tensor

from ..dynamic_filter.reference import dynamic_filter
from ..select_patches.reference import select_patches


def filter_and_select(
    probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, k: int, order: str, seed: int
) -> tuple[Tensor, Tensor]:
    mask = dynamic_filter(probability, source, weight, bias)
    return mask, select_patches(mask.detach(), k, order, seed)
