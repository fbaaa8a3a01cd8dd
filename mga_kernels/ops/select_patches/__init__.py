"""``select_patches``: mask -> indices of the K cells to refine."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator
from . import reference

SELECTIONS = ("largest", "smallest", "random")
DTYPES = (*FLOATS, torch.float64)


def select_patches(mask: Tensor, k: int, order: str = "largest", seed: int = 0) -> Tensor:
    """The K cells of each image to refine (section 3.3; the orders are those of Table 7).

    ``mask`` (B, Hp, Wp), floating -> int32 (B, min(k, Hp * Wp)), ascending, cell i = row i // Wp, column i % Wp.

    "largest" and "smallest" go by value. Equal values, and -0.0 and +0.0, go to the lower index; NaN is chosen after
    every number in both orders. "random" goes by a hash of the cell index and ``seed`` (0 to 2^32 - 1) and ignores the
    values. The result depends on the image and the arguments alone: not on backend, batch, threads or run.

    Raises InputError for a mask that is not three-dimensional and floating, k < 0, an unknown order or seed.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 3 or mask.dtype not in DTYPES:
        raise InputError(f"select_patches: mask must be a floating tensor (B, Hp, Wp), got {describe(mask)}")
    k, seed = check_selection("select_patches", k, order, seed)
    # The indices carry no gradient, so a mask that needs one is no reason to leave the native kernel.
    return OPERATOR(mask.detach(), k, order, seed)


def check_selection(op: str, k: int, order: str, seed: int) -> tuple[int, int]:
    """``k`` and ``seed`` as ints."""
    k = check_count(op, "k", k, 0)
    if order not in SELECTIONS:
        raise InputError(f"{op}: order {order!r} does not exist; choose one of {', '.join(SELECTIONS)}")
    seed = check_count(op, "seed", seed, 0)
    if seed >= 2**32:
        raise InputError(f"{op}: seed must be below 2^32, got {seed}")
    return k, seed


register_fake("select_patches")(reference.fake)
OPERATOR = Operator[Tensor](
    "select_patches",
    NativeBackend("select_patches", "cuda", DTYPES),
    NativeBackend("select_patches", "cpu", DTYPES),
    Backend(reference.select_patches),
)
