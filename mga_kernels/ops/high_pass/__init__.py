"""``high_pass``: where a picture has detail, the mask that costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, describe
from ..registry import Backend, NativeBackend, Operator, TritonBackend
from . import reference

LARGEST_SIDE = 1 << 12


def high_pass(picture: Tensor, side: int) -> Tensor:
    """How far the luma of a cell's pixels is from its mean over 3 x 3 pixels of the cell, root mean square.

    ``picture`` uint8 (B, H, W, 3), any strides -> float32 (B, ceil(H / side), ceil(W / side)), from 0 to 8/9, in units
    of white. Luma is that of BT.601 in 1020 steps, (77 R + 150 G + 29 B + 32) >> 6. A pixel at the edge of its cell is
    repeated, so that a cell's value depends on the cell alone; of cells beyond the border the part inside counts. Sums
    are of integers: every backend gives the same bits. Raises InputError for another shape, dtype or side.
    """
    op = "high_pass"
    if not isinstance(picture, Tensor) or picture.ndim != 4 or picture.shape[3] != 3 or picture.dtype != torch.uint8:
        raise InputError(f"{op}: picture must be a uint8 tensor (B, H, W, 3), got {describe(picture)}")
    side = check_count(op, "side", side, 1)
    if side > LARGEST_SIDE:
        raise InputError(f"{op}: side must be at most {LARGEST_SIDE} pixels, got {side}")
    return OPERATOR(picture, side)


def _not_packed(picture: Tensor, side: int) -> str | None:
    return None if picture.stride()[2:] == (3, 1) else "the pixels of a row are not side by side"


register_fake("high_pass")(reference.fake)
OPERATOR = Operator[Tensor](
    "high_pass",
    TritonBackend("high_pass", f"{__name__}.triton", reference.high_pass, (torch.uint8,)),
    NativeBackend("high_pass", "cpu", (torch.uint8,), _not_packed),
    Backend(reference.high_pass),
)
