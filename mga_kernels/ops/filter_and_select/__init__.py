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
    k, seed = check_selection(op, k, order, seed)
    return OPERATOR(probability, source, weight, bias, k, order, seed)


def _cuda_refuses(probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor, *_: object) -> str | None:
    if torch.float64 in (source.dtype, weight.dtype):
        return "torch.float64 of source or weight is not among its dtypes"
    if weight.dtype != bias.dtype:
        return f"weight is {weight.dtype} and bias {bias.dtype}"
    if weight.shape[0] > 49 or weight.shape[1] > 128:
        return f"{weight.shape[0]} coefficients from {weight.shape[1]} channels; it takes up to 49 from up to 128"
    return None


register_fake("filter_and_select")(reference.fake)
OPERATOR = Operator[tuple[Tensor, Tensor]](
    "filter_and_select",
    NativeBackend("filter_and_select", "cuda", (torch.float32,), _cuda_refuses),
    NativeBackend("filter_and_select", "cpu", DTYPES),
    Backend(reference.filter_and_select),
)
