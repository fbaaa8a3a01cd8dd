"""Triton kernel of ``high_pass``: one launch, which reads every byte once for each column beside it.

A program goes down the rows of a cell with those above, at and below a pixel in registers. Sums are of integers, and
the square root is taken in float64, as by the definition.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import offset_type
from .reference import fake

MOST = 512  # columns of a cell that are worked on side by side


@triton.jit
def luma(pixels, channel):
    """0 to 1020, of the red values that ``pixels`` point at and of what lies one and two ``channel`` further."""
    red = tl.load(pixels).to(tl.int32)
    green = tl.load(pixels + channel).to(tl.int32)
    blue = tl.load(pixels + 2 * channel).to(tl.int32)
    return (77 * red + 150 * green + 29 * blue + 32) >> 6


@triton.jit
def high_pass_kernel(
    picture,  # uint8 (B, height, width, 3)
    result,  # float32 (B, rows, columns), contiguous
    height,
    width,
    rows,
    columns,
    stride_b,
    stride_y,
    stride_x,
    stride_c,
    SIDE: tl.constexpr,  # of a cell
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,  # integer type that holds the offsets within a cell
):
    cell = tl.program_id(0)
    top = cell // columns % rows * SIDE
    left = cell % columns * SIDE
    down = tl.minimum(SIDE, height - top)  # of the cell, what lies in the picture
    across = tl.minimum(SIDE, width - left)
    image = (cell // columns // rows).to(tl.int64)
    origin = picture + image * stride_b + top.to(tl.int64) * stride_y + left.to(tl.int64) * stride_x
    row_stride = tl.cast(stride_y, OFFSET)
    pixel_stride = tl.cast(stride_x, OFFSET)
    channel = tl.cast(stride_c, OFFSET)

    sums = tl.zeros((BLOCK,), tl.int64)
    for first in range(0, SIDE, BLOCK):
        x = first + tl.arange(0, BLOCK)
        here = tl.minimum(x, across - 1)
        before = origin + tl.maximum(here - 1, 0) * pixel_stride
        after = origin + tl.minimum(here + 1, across - 1) * pixel_stride
        at = origin + here * pixel_stride
        middle = luma(at, channel)
        three = luma(before, channel) + middle + luma(after, channel)
        above = three
        for y in range(0, down):
            shift = tl.minimum(y + 1, down - 1) * row_stride
            below_middle = luma(at + shift, channel)
            below = luma(before + shift, channel) + below_middle + luma(after + shift, channel)
            distance = 9 * middle - above - three - below
            sums += tl.where(x < across, distance * distance, 0).to(tl.int64)
            above = three
            three = below
            middle = below_middle

    mean = tl.sum(sums, 0).to(tl.float64) / (down * across).to(tl.float64)
    tl.store(result + cell, (tl.sqrt(mean) / 9180.0).to(tl.float32))  # 9 times 1020


def high_pass(picture: Tensor, side: int) -> Tensor:
    result = fake(picture, side)
    if result.numel() == 0:
        return result
    block = min(MOST, triton.next_power_of_2(side))
    high_pass_kernel[(result.numel(),)](
        picture,
        result,
        *picture.shape[1:3],
        *result.shape[1:],
        *picture.stride(),
        SIDE=side,
        BLOCK=block,
        OFFSET=offset_type(*(side * stride for stride in picture.stride()[1:])),
        num_warps=max(1, min(4, block // 32)),
    )
    return result
