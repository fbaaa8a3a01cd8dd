"""Triton kernel of ``paste_patches_``: a program copies a patch in words of up to 16 bytes."""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import axes_of, copy_words, programs_of

BLOCK = 1024  # units of a program, at most


@triton.jit
def paste_patches_kernel(
    image,  # (B, C, Hs, Ws)
    patches,  # (B * K, C, q, q)
    indices,  # (B * K) int32
    count,  # K
    rows,
    columns,
    image_b,  # strides of both in units of VECTOR words
    image_c,
    image_y,
    image_x,
    patch_n,
    patch_c,
    patch_y,
    patch_x,
    CHANNELS: tl.constexpr,  # units along the channels
    DOWN: tl.constexpr,  # q
    ACROSS: tl.constexpr,  # units along a row of a patch
    CHANNELS_LAST: tl.constexpr,
    WORD: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    UNITS: tl.constexpr = CHANNELS * DOWN * ACROSS
    n = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    c, y, x = axes_of(unit, CHANNELS, DOWN, ACROSS, CHANNELS_LAST)
    cell = tl.load(indices + n)
    inside = ((cell >= 0) & (cell < rows * columns) & (unit < UNITS))[:, None]
    c = c.to(tl.int64)
    word = tl.arange(0, VECTOR)[None, :]
    source = n * patch_n + c * patch_c + y.to(tl.int64) * patch_y + x.to(tl.int64) * patch_x
    values = tl.load(patches.to(tl.pointer_type(WORD)) + (source[:, None] * VECTOR + word), mask=inside, other=0)
    y = (cell // columns * DOWN + y).to(tl.int64)
    x = (cell % columns * ACROSS + x).to(tl.int64)
    target = n // count * image_b + c * image_c + y * image_y + x * image_x
    tl.store(image.to(tl.pointer_type(WORD)) + (target[:, None] * VECTOR + word), values, mask=inside)


def paste_patches_(image: Tensor, patches: Tensor, indices: Tensor) -> None:
    if patches.numel() == 0:
        return
    channels, side = patches.shape[1:3]
    rows, columns = image.shape[2] // side, image.shape[3] // side
    across, size = side, image.element_size()
    strides = [image.stride(), patches.stride()]  # of axes b or n, c, y, x
    if all(c == 1 and x == channels for b, c, y, x in strides):  # whole rows are runs: take them as one channel
        across, channels = side * channels, 1
        strides = [(b, 0, y, 1) for b, c, y, x in strides]
    inner = next((axis for axis in (3, 1) if all(of[axis] == 1 for of in strides)), None)
    run = 1
    if inner is not None:
        run = math.gcd(
            (channels, across)[inner == 3], *(of[axis] for of in strides for axis in range(4) if axis != inner)
        )
    word, vector = copy_words(size * run, image, patches)
    elements = word.primitive_bitwidth // 8 * vector // size  # of a unit
    if inner == 3:
        across //= elements
    else:
        channels //= elements
    units = channels * side * across
    programs, block = programs_of(patches, units, BLOCK)
    paste_patches_kernel[programs](
        image,
        patches,
        indices,
        indices.shape[1],
        rows,
        columns,
        *(1 if axis == inner else of[axis] // elements for of in strides for axis in range(4)),
        CHANNELS=channels,
        DOWN=side,
        ACROSS=across,
        CHANNELS_LAST=inner != 3 and image.stride(1) == 1,
        WORD=word,
        VECTOR=vector,
        BLOCK=block,
        num_warps=4,
    )
