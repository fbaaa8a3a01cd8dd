"""Triton kernel of ``paste_shuffled_``: shuffle, clamp, conversion and paste in one launch, a patch a program."""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import axes_of, programs_of, round_to_byte

BLOCK = 256  # units of a program, at most
VECTOR = 4  # pixels or channels side by side in the image that a thread writes, at most


@triton.jit
def paste_shuffled_kernel(
    image,  # (B, C, Hs, Ws)
    patches,  # (B * K, C * r * r, m, m)
    indices,  # (B * K) int32
    count,  # K
    rows,
    columns,
    gain,
    image_b,  # in units of VECTOR elements, as the next
    image_y,
    image_c,
    image_x,
    patch_n,
    patch_c,
    patch_y,
    patch_x,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,  # q
    SCALE: tl.constexpr,  # r
    CHANNELS_LAST: tl.constexpr,  # (y, x, c) is the order in the image, else (c, y, x)
    RUN: tl.constexpr,  # the last axes, whose elements follow one another in the image: VECTOR divides it
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    ELEMENTS: tl.constexpr = CHANNELS * SIDE * SIDE
    n = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    cell = tl.load(indices + n)
    inside = ((cell >= 0) & (cell < rows * columns) & (unit * VECTOR < ELEMENTS))[:, None]
    element = unit[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    c, y, x = axes_of(element, CHANNELS, SIDE, SIDE, CHANNELS_LAST)
    channel = (c * SCALE + y % SCALE) * SCALE + x % SCALE
    source = n * patch_n + channel.to(tl.int64) * patch_c
    source += (y // SCALE).to(tl.int64) * patch_y + (x // SCALE).to(tl.int64) * patch_x
    value = tl.load(patches + source, mask=inside, other=0.0).to(tl.float32) * gain
    value = tl.where(value < 0, 0.0, tl.where(value > 1, 1.0, value))  # keeps NaN
    if image.dtype.element_ty == tl.uint8:
        value = round_to_byte(value)

    row = (cell // columns * SIDE).to(tl.int64)
    column = (cell % columns * SIDE).to(tl.int64)
    target = n // count * image_b
    if RUN > 1:  # the offsets of a unit follow one another, which has to show
        if CHANNELS_LAST:
            target += (row + unit * VECTOR // RUN) * image_y + column * CHANNELS // VECTOR
        else:
            target += (row + unit * VECTOR // RUN % SIDE) * image_y + column // VECTOR
            target += (unit * VECTOR // RUN // SIDE).to(tl.int64) * image_c
        target = (target + unit % (RUN // VECTOR))[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    else:
        target += (row + y) * image_y + (column + x) * image_x + c.to(tl.int64) * image_c
    tl.store(image + target, value.to(image.dtype.element_ty), mask=inside)


def paste_shuffled_(image: Tensor, patches: Tensor, indices: Tensor, scale: int, gain: float) -> None:
    if patches.numel() == 0:
        return
    channels, side = image.shape[1], patches.shape[2] * scale
    stride_b, stride_c, stride_y, stride_x = image.stride()
    channels_last = stride_c == 1 and channels > 1
    run, vector = 1, 1
    if channels_last and stride_x == channels:
        run = side * channels
        vector = math.gcd(VECTOR, run, stride_b, stride_y)
    elif not channels_last and stride_x == 1:
        run = side
        vector = math.gcd(VECTOR, run, stride_b, stride_y, stride_c)
    units = channels * side * side // vector
    programs, block = programs_of(patches, units, BLOCK)
    paste_shuffled_kernel[programs](
        image,
        patches,
        indices,
        indices.shape[1],
        image.shape[2] // side,
        image.shape[3] // side,
        gain,
        stride_b // vector,
        stride_y // vector,
        stride_c // (1 if channels_last else vector),
        stride_x,
        *patches.stride(),
        CHANNELS=channels,
        SIDE=side,
        SCALE=scale,
        CHANNELS_LAST=channels_last,
        RUN=run,
        VECTOR=vector,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,  # each product is rounded by itself, as in the definition
    )
