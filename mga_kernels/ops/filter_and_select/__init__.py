"""``filter_and_select``: ``dynamic_filter`` and ``select_patches`` in one, the second half of the mask branch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ..dynamic_filter import DTYPES, check_filter
from ..registry import Backend, NativeBackend, Operator
from ..select_patches import check_selection
from . import reference


def filter_and_select(
    probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, k: int, order: str = "largest", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Under-SR probability -> mask (B, Hp, Wp) and the indices int32 (B, min(k, Hp * Wp)) of the cells to refine.

    Exactly ``mask = dynamic_filter(probability, source, weight, bias)`` and ``select_patches(mask, k, order, seed)``:
    arguments, results and errors are theirs. The indices are those of the mask that is returned, bit for bit.
    """
    op = "filter_and_select"
    check_filter(op, probability, source, weight, bias)
    check_selection(op, k, order, seed)
    return OPERATOR(probability, source, weight, bias, k, order, seed)


@register_fake("filter_and_select")
def _fake(
    probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, k: int, order: str, seed: int
) -> tuple[Tensor, Tensor]:
    batch, rows, columns = probability.shape
    mask = probability.new_empty(probability.shape)
    return mask, mask.new_empty((batch, torch.sym_min(k, rows * columns)), dtype=torch.int32)


OPERATOR = Operator(
    "filter_and_select",
    NativeBackend("filter_and_select", "cpu", DTYPES),
    Backend(reference.filter_and_select),
)
