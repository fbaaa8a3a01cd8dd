"""Triton kernel of ``patch_conv``: one launch; the pixels of all patches are the rows of one matrix product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import alignment, channels_block, dot, exists, float32_precision, offset_type, taps_seen

ROWS = 128  # pixels of a program


@triton.jit
def patch_conv_kernel(
    feature,  # (B, C, H, W), channels innermost
    indices,  # (B * K) int32
    weight,  # (C', n, n, C), contiguous
    bias,  # (C')
    target,  # (B * K, side, side, C'), contiguous
    pixels,  # B * K * side * side
    count,  # K
    rows,
    columns,
    slope,
    stride_b,  # strides in units of ALIGNED elements
    stride_y,
    stride_x,
    P: tl.constexpr,
    HALO: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
    SIZE: tl.constexpr,  # n
    ALIGNED: tl.constexpr,
    OFFSET: tl.constexpr,  # integer type that holds the offset of a tap
    M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SIDE: tl.constexpr = P + 2 * HALO
    m = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    n = m // (SIDE * SIDE)
    within = (m % (SIDE * SIDE)).to(tl.int32)
    cell = tl.load(indices + n, mask=m < pixels, other=-1)
    patch_y = within // SIDE
    patch_x = within % SIDE
    y = cell // columns * P - HALO + patch_y
    x = cell % columns * P - HALO + patch_x
    pixel = (n // count * stride_b + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x) * ALIGNED
    # The patch ends at its halo and the feature at its border; beyond both are zeros.
    seen_y = exists(patch_y, 0, SIDE) & exists(y, 0, rows * P)
    seen_x = exists(patch_x, 0, SIDE) & exists(x, 0, columns * P)
    seen = taps_seen(seen_y, seen_x) if SIZE == 3 else (seen_y & seen_x) >> 1
    seen = tl.where((cell >= 0) & (cell < rows * columns), seen, 0)
    stride_y = tl.cast(stride_y, OFFSET)
    stride_x = tl.cast(stride_x, OFFSET)
    o = tl.program_id(1) * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    result = tl.zeros((M, BLOCK_FILTERS), tl.float32)
    for tap in range(SIZE * SIZE):
        dy = tap // SIZE - SIZE // 2
        dx = tap % SIZE - SIZE // 2
        shift = (dy * stride_y + dx * stride_x) * ALIGNED
        for start in range(0, CHANNELS, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            source = feature + shift + start + (pixel[:, None] + tl.arange(0, BLOCK_C)[None, :])
            a = tl.load(source, mask=((seen >> tap) & 1 != 0)[:, None] & (c < CHANNELS)[None, :], other=0.0)
            taps = weight + (tap * CHANNELS + c)[:, None] + o[None, :] * (SIZE * SIZE * CHANNELS)
            w = tl.load(taps, mask=(c < CHANNELS)[:, None] & (o < FILTERS)[None, :], other=0.0)
            result = dot(a, w, result, PRECISION)
    result += tl.load(bias + o, mask=o < FILTERS, other=0.0).to(tl.float32)[None, :]
    result = tl.where(result > 0, result, result * slope)
    source = target + m[:, None] * FILTERS + o[None, :]
    tl.store(source, result.to(target.dtype.element_ty), mask=(m < pixels)[:, None] & (o < FILTERS)[None, :])


def fake(feature, indices, weight, bias, patch_size, halo, slope):
    side = patch_size + 2 * halo
    size = (indices.shape[0] * indices.shape[1], weight.shape[0], side, side)
    return torch.empty(size, dtype=feature.dtype, device=feature.device, memory_format=torch.channels_last)


def patch_conv(
    feature: Tensor, indices: Tensor, weight: Tensor, bias: Tensor, patch_size: int, halo: int, slope: float
) -> Tensor:
    result = fake(feature, indices, weight, bias, patch_size, halo, slope)
    if result.numel() == 0:
        return result
    if feature.stride(1) != 1:
        feature = feature.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    filters, channels, size, _ = weight.shape
    aligned = alignment(feature)
    half = feature.element_size() == 2
    block_filters = channels_block(filters, 64)
    pixels = result.shape[0] * result.shape[2] ** 2
    patch_conv_kernel[(triton.cdiv(pixels, ROWS), triton.cdiv(filters, block_filters))](
        feature,
        indices,
        weight,
        bias.contiguous(),
        result,
        pixels,
        indices.shape[1],
        feature.shape[2] // patch_size,
        feature.shape[3] // patch_size,
        slope,
        *(feature.stride(axis) // aligned for axis in (0, 2, 3)),
        P=patch_size,
        HALO=halo,
        CHANNELS=channels,
        FILTERS=filters,
        SIZE=size,
        ALIGNED=aligned,
        OFFSET=offset_type(feature.stride(2), feature.stride(3)),
        M=ROWS,
        BLOCK_C=channels_block(channels, 32 if half else 16),
        BLOCK_FILTERS=block_filters,
        PRECISION=float32_precision(),
        num_warps=4 if half and aligned == 8 else 8 if half else 16,
        num_stages=1,
    )
    return result
