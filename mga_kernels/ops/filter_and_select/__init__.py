"""``filter_and_select``: ``dynamic_filter`` and ``select_patches`` in one, the second half of the mask branch."""

from __future__ import annotations

from torch import Tensor

from ..dynamic_filter import check_filter
from ..registry import Backend, Operator
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


OPERATOR = Operator("filter_and_select", Backend(reference.filter_and_select))
