"""``patch_conv``: the first convolution of the Refine-Net, read straight from the coarse feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._native import call
from ...errors import InputError
from ..grid import check_count, check_divides, check_indices, check_same_device, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference


def patch_conv(
    feature: Tensor,
    indices: Tensor,
    weight: Tensor,
    bias: Tensor,
    patch_size: int,
    halo: int,
    slope: float = 1.0,
) -> Tensor:
    """Convolution of the selected patches without a gathered copy of them (section 3.2).

    ``feature`` (B, C, H, W), ``indices`` int32 (B, K), ``weight`` (C', C, n, n) with n = 1 or 3, ``bias`` (C') ->
    (B * K, C', p + 2h, p + 2h), channels-last:

        leaky_relu(conv2d(gather_patches(feature, indices, p, h), weight, bias, padding=n // 2), slope)

    so zeros stand around each patch, whatever the feature holds there. ``slope`` 1 means no activation, 0 ReLU. Half
    precision is accumulated in float32. Differentiable by the reference. Raises InputError for wrong shapes or dtypes;
    an index outside the grid is treated as by ``gather_patches``.
    """
    op = "patch_conv"
    if not isinstance(feature, Tensor) or feature.ndim != 4 or not feature.is_floating_point():
        raise InputError(f"{op}: feature must be a floating tensor (B, C, H, W), got {describe(feature)}")
    check_count(op, "patch_size", patch_size, 1)
    check_count(op, "halo", halo, 0)
    check_divides(op, "feature", feature.shape[2], feature.shape[3], patch_size)
    check_indices(op, indices, feature.shape[0])
    size = weight.shape[-1] if weight.ndim == 4 else 0
    if size not in (1, 3) or tuple(weight.shape[1:]) != (feature.shape[1], size, size):
        raise InputError(f"{op}: weight must be (C', {feature.shape[1]}, n, n), n 1 or 3, got {tuple(weight.shape)}")
    if tuple(bias.shape) != (weight.shape[0],):
        raise InputError(f"{op}: bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    if not feature.dtype == weight.dtype == bias.dtype:
        raise InputError(f"{op}: feature, weight and bias must have one dtype; convert them first")
    check_same_device(op, feature, indices, weight, bias)
    return OPERATOR(feature, indices.contiguous(), weight, bias, patch_size, halo, float(slope))


def _gather_then_convolve(
    feature: Tensor, indices: Tensor, weight: Tensor, bias: Tensor, patch_size: int, halo: int, slope: float
) -> Tensor:
    """On a CPU the gathered copy costs a tenth of the convolution, which oneDNN does near the peak of the processor."""
    patches = call("gather_patches", feature, indices, patch_size, halo)
    patches = patches.contiguous(memory_format=torch.channels_last)
    result = F.conv2d(patches, weight, bias, padding=weight.shape[-1] // 2)
    result = result if slope == 1 else F.leaky_relu_(result, slope)
    return result.contiguous(memory_format=torch.channels_last)


def _cpu() -> NativeBackend:
    backend = NativeBackend("gather_patches", "cpu", (*FLOATS, torch.float64))
    backend.run = _gather_then_convolve
    return backend


OPERATOR = Operator(
    "patch_conv",
    TritonBackend("patch_conv", f"{__name__}.triton", reference.patch_conv, FLOATS),
    _cpu(),
    Backend(reference.patch_conv),
)
