"""``gather_patches``: coarse feature and indices -> the selected patches with their halo."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, check_divides, check_indices, check_same_device, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference

DTYPES = (*FLOATS, torch.float64, torch.uint8)


def gather_patches(feature: Tensor, indices: Tensor, patch_size: int, halo: int) -> Tensor:
    """Cut the selected cells out of the feature, each with ``halo`` pixels around it (section 3.2).

    ``feature`` (B, C, H, W) with H, W multiples of p = ``patch_size``, ``indices`` int32 (B, K) ->
    (B * K, C, p + 2h, p + 2h), zeros outside the feature:

        patch[b * K + i, c, y, x] = feature[b, c, row * p - h + y, column * p - h + x]
        with indices[b, i] = row * (W / p) + column

    Any strides are read without a copy. The result is channels-last where channels are innermost in the feature
    (stride(1) == 1 and C > 1), else contiguous. Differentiable in the feature, by the reference.

    An index outside the grid raises InputError on the CPU; on other devices, where looking would wait for the device,
    its patch is zeros. Raises InputError for wrong shapes, dtypes, devices or sizes that p does not divide.
    """
    op = "gather_patches"
    if not isinstance(feature, Tensor) or feature.ndim != 4:
        raise InputError(f"{op}: feature must be a tensor (B, C, H, W), got {describe(feature)}")
    patch_size = check_count(op, "patch_size", patch_size, 1)
    halo = check_count(op, "halo", halo, 0)
    check_divides(op, "feature", feature.shape[2], feature.shape[3], patch_size)
    check_indices(op, indices, feature.shape[0])
    check_same_device(op, feature, indices)
    return OPERATOR(feature, indices.contiguous(), patch_size, halo)


register_fake("gather_patches")(reference.fake)
OPERATOR = Operator[Tensor](
    "gather_patches",
    NativeBackend("gather_patches", "cuda", DTYPES),
    TritonBackend("gather_patches", f"{__name__}.triton", reference.gather_patches, DTYPES),
    NativeBackend("gather_patches", "cpu", DTYPES),
    Backend(reference.gather_patches),
)
