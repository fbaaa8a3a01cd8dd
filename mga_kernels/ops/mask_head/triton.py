"""Triton kernel of ``mask_head``: one launch, of which the hidden C'-channel map never reaches memory.

A program takes a tile of cells. It computes the hidden map of the tile and of the pixel around it, multiplies every
hidden pixel by the nine taps of the second convolution at once, and each score then picks its nine products.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import alignment, channels_block, dot, exists, float32_precision, offset_type, taps_seen
from .reference import fake

HIDDEN_PIXELS = 256  # of a tile, its border included


@triton.jit
def mask_head_kernel(
    feature,  # (B, C, H, W), channels innermost
    weight1,  # (C', 3, 3, C), contiguous
    bias1,  # (C')
    weight2,  # (classes, 3, 3, C'), contiguous
    bias2,  # (classes)
    probability,  # (B, H / p, W / p) float32, contiguous
    height,
    width,
    stride_b,  # strides in units of ALIGNED elements
    stride_y,
    stride_x,
    tiles_y,
    tiles_x,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CLASSES: tl.constexpr,
    POOL_FIRST: tl.constexpr,
    P: tl.constexpr,
    CELLS_Y: tl.constexpr,  # cells of a tile
    CELLS_X: tl.constexpr,
    CELLS: tl.constexpr,  # power of two >= CELLS_Y * CELLS_X
    PIXELS: tl.constexpr,  # power of two >= P * P
    ALIGNED: tl.constexpr,
    OFFSET: tl.constexpr,  # integer type that holds the offsets within a tile
    M: tl.constexpr,  # power of two >= hidden pixels of a tile
    BLOCK_C: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile = tl.program_id(0)
    tile_x = tile % tiles_x
    tile_y = tile // tiles_x % tiles_y
    image = tile // tiles_x // tiles_y
    ACROSS: tl.constexpr = CELLS_X * P + 2
    DOWN: tl.constexpr = CELLS_Y * P + 2

    m = tl.arange(0, M)
    top = tile_y * (CELLS_Y * P) - 1
    left = tile_x * (CELLS_X * P) - 1
    origin = image.to(tl.int64) * stride_b + top.to(tl.int64) * stride_y + left.to(tl.int64) * stride_x
    origin = feature + origin * ALIGNED
    stride_y = tl.cast(stride_y, OFFSET)
    stride_x = tl.cast(stride_x, OFFSET)
    pixel = ((m // ACROSS).to(OFFSET) * stride_y + (m % ACROSS).to(OFFSET) * stride_x) * ALIGNED
    y = top + m // ACROSS
    x = left + m % ACROSS
    inside = (m < ACROSS * DOWN) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    seen = tl.where(inside, taps_seen(exists(y, 0, height), exists(x, 0, width)), 0)
    tap = tl.arange(0, 16)

    products = tl.zeros((M, 16), tl.float32)
    for first in range(0, HIDDEN, BLOCK_HIDDEN):
        o = first + tl.arange(0, BLOCK_HIDDEN)
        hidden = tl.zeros((M, BLOCK_HIDDEN), tl.float32)
        for t in range(9):
            shift = ((t // 3 - 1) * stride_y + (t % 3 - 1) * stride_x) * ALIGNED
            for start in range(0, CHANNELS, BLOCK_C):
                c = start + tl.arange(0, BLOCK_C)
                source = origin + shift + start + (pixel[:, None] + tl.arange(0, BLOCK_C)[None, :])
                a = tl.load(source, mask=((seen >> t) & 1 != 0)[:, None] & (c < CHANNELS)[None, :], other=0.0)
                taps = weight1 + (t * CHANNELS + c)[:, None] + o[None, :] * (9 * CHANNELS)
                w = tl.load(taps, mask=(c < CHANNELS)[:, None] & (o < HIDDEN)[None, :], other=0.0)
                hidden = dot(a, w, hidden, PRECISION)
        hidden += tl.load(bias1 + o, mask=o < HIDDEN, other=0.0).to(tl.float32)[None, :]
        hidden = tl.where(hidden < 0, 0.0, hidden)  # not tl.maximum, which loses NaN
        hidden = tl.where(inside[:, None], hidden, 0.0).to(feature.dtype.element_ty)
        if feature.dtype.element_ty == tl.float32 and BLOCK_HIDDEN > 16:  # as a product it would spill
            for t in tl.static_range(9):
                scale = tl.load(weight2 + ((CLASSES - 1) * 9 + t) * HIDDEN + o, mask=o < HIDDEN, other=0.0)
                if CLASSES == 2:
                    scale -= tl.load(weight2 + t * HIDDEN + o, mask=o < HIDDEN, other=0.0)
                product = tl.sum(hidden * scale[None, :], 1)
                products += tl.where((tap == t)[None, :], product[:, None], 0.0)
        else:
            taps2 = weight2 + tap[None, :] * HIDDEN + o[:, None]
            real = (tap < 9)[None, :] & (o < HIDDEN)[:, None]
            if CLASSES == 2:  # softmax over two is a sigmoid of the difference, which is formed without rounding
                products = dot(hidden, -tl.load(taps2, mask=real, other=0.0), products, PRECISION)
                taps2 += 9 * HIDDEN
            products = dot(hidden, tl.load(taps2, mask=real, other=0.0), products, PRECISION)

    cell = tl.arange(0, CELLS)
    pixel_y = (cell // CELLS_X * P)[:, None] + (tl.arange(0, PIXELS) // P)[None, :]
    pixel_x = (cell % CELLS_X * P)[:, None] + (tl.arange(0, PIXELS) % P)[None, :]
    corner = tl.reshape(pixel_y * ACROSS + pixel_x, (CELLS * PIXELS,))
    of_tap = corner[:, None] + (tap // 3 * ACROSS + tap % 3)[None, :]
    products = tl.gather(products, tl.where((of_tap < M) & (tap < 9)[None, :], of_tap, 0), 0)
    score = tl.sum(tl.where((tap < 9)[None, :], products, 0.0), 1)
    score = tl.reshape(score, (CELLS, PIXELS)) + tl.load(bias2 + CLASSES - 1).to(tl.float32)
    if CLASSES == 2:
        score -= tl.load(bias2).to(tl.float32)
        if not POOL_FIRST:
            score = tl.sigmoid(score)
    result = tl.sum(tl.where((tl.arange(0, PIXELS) < P * P)[None, :], score, 0.0), 1) / (P * P)
    if CLASSES == 1:
        result = tl.where(result < 0, 0.1 * result, result)
    elif POOL_FIRST:
        result = tl.sigmoid(result)
    row = tile_y * CELLS_Y + cell // CELLS_X
    column = tile_x * CELLS_X + cell % CELLS_X
    rows = height // P
    columns = width // P
    target = probability + (image.to(tl.int64) * rows + row) * columns + column
    tl.store(target, result, mask=(cell < CELLS_Y * CELLS_X) & (row < rows) & (column < columns))


def mask_head(
    feature: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, patch_size: int, order: str
) -> Tensor:
    batch, channels, height, width = feature.shape
    probability = fake(feature, weight1, bias1, weight2, bias2, patch_size, order)
    if probability.numel() == 0:
        return probability
    if feature.stride(1) != 1:
        feature = feature.contiguous(memory_format=torch.channels_last)
    weight1, weight2 = (weight.contiguous(memory_format=torch.channels_last) for weight in (weight1, weight2))
    aligned = alignment(feature)
    stride_b, stride_y, stride_x = (feature.stride(axis) // aligned for axis in (0, 2, 3))
    cells_y, cells_x = tile_cells(patch_size)
    tiles_y, tiles_x = (triton.cdiv(n, c) for n, c in zip(probability.shape[1:], (cells_y, cells_x), strict=True))
    half = feature.element_size() == 2
    mask_head_kernel[(batch * tiles_y * tiles_x,)](
        feature,
        weight1,
        bias1.contiguous(),
        weight2,
        bias2.contiguous(),
        probability,
        height,
        width,
        stride_b,
        stride_y,
        stride_x,
        tiles_y,
        tiles_x,
        CHANNELS=channels,
        HIDDEN=weight1.shape[0],
        CLASSES=weight2.shape[0],
        POOL_FIRST=order == "pool-then-softmax",
        P=patch_size,
        CELLS_Y=cells_y,
        CELLS_X=cells_x,
        CELLS=triton.next_power_of_2(cells_y * cells_x),
        PIXELS=triton.next_power_of_2(patch_size**2),
        ALIGNED=aligned,
        OFFSET=offset_type(HIDDEN_PIXELS * feature.stride(2), HIDDEN_PIXELS * feature.stride(3)),
        M=HIDDEN_PIXELS,
        BLOCK_C=channels_block(channels, 32 if half else 16),
        BLOCK_HIDDEN=channels_block(weight1.shape[0], 64),
        PRECISION=float32_precision(),
        # As many warps as keep all in registers and leave room for another program. One stage: the taps of a pixel
        # meet in the L1 cache, which asynchronous 16-byte copies would go around.
        num_warps=8 if (half and aligned == 8) or weight1.shape[0] <= 16 else 16,
        num_stages=1,
    )
    return probability


def tile_cells(patch_size: int) -> tuple[int, int]:
    """Rows and columns of the largest tile of cells that has at most HIDDEN_PIXELS hidden pixels."""
    best = (0, 0)
    for rows in range(1, HIDDEN_PIXELS):
        columns = (HIDDEN_PIXELS // (rows * patch_size + 2) - 2) // patch_size
        if columns >= rows and rows * columns > best[0] * best[1]:
            best = rows, columns
    return best
