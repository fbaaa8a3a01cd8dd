"""Triton kernel of ``gather_patches``: a program copies a patch in words of up to 16 bytes."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import axes_of, copy_words, programs_of
from .reference import fake, memory_format

BLOCK = 1024  # units of a program, at most


@triton.jit
def gather_patches_kernel(
    feature,  # (B, C, H, W)
    indices,  # (B * K) int32
    patches,  # (B * K, C, side, side), contiguous or channels-last
    count,  # K
    rows,
    columns,
    stride_b,  # strides of the feature in units of VECTOR words
    stride_c,
    stride_y,
    stride_x,
    P: tl.constexpr,
    HALO: tl.constexpr,
    CHANNELS: tl.constexpr,  # units along the channels
    CHANNELS_LAST: tl.constexpr,
    WORD: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    SIDE: tl.constexpr = P + 2 * HALO
    UNITS: tl.constexpr = CHANNELS * SIDE * SIDE
    n = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    c, down, across = axes_of(unit, CHANNELS, SIDE, SIDE, CHANNELS_LAST)
    cell = tl.load(indices + n)
    y = cell // columns * P - HALO + down
    x = cell % columns * P - HALO + across
    inside = (cell >= 0) & (cell < rows * columns) & (y >= 0) & (y < rows * P) & (x >= 0) & (x < columns * P)
    source = n // count * stride_b + c.to(tl.int64) * stride_c + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
    word = tl.arange(0, VECTOR)[None, :]
    source = feature.to(tl.pointer_type(WORD)) + (source[:, None] * VECTOR + word)
    values = tl.load(source, mask=(inside & (unit < UNITS))[:, None], other=0)
    target = patches.to(tl.pointer_type(WORD)) + n * (UNITS * VECTOR) + (unit[:, None] * VECTOR + word)
    tl.store(target, values, mask=(unit < UNITS)[:, None])


def gather_patches(feature: Tensor, indices: Tensor, patch_size: int, halo: int) -> Tensor:
    patches = fake(feature, indices, patch_size, halo)
    if patches.numel() == 0:
        return patches
    channels, height, width = feature.shape[1:]
    channels_last = memory_format(feature) == torch.channels_last
    size = feature.element_size()
    stride_b, stride_c, stride_y, stride_x = feature.stride()
    run = math.gcd(channels, stride_b, stride_y, stride_x) if channels_last else 1  # channels of a pixel go together
    word, vector = copy_words(size * run, feature, patches)
    elements = word.primitive_bitwidth // 8 * vector // size  # of a unit
    channels //= elements
    units = channels * (patch_size + 2 * halo) ** 2
    programs, block = programs_of(patches, units, BLOCK)
    gather_patches_kernel[programs](
        feature,
        indices,
        patches,
        indices.shape[1],
        height // patch_size,
        width // patch_size,
        stride_b // elements,
        1 if channels_last else stride_c,
        stride_y // elements,
        stride_x // elements,
        P=patch_size,
        HALO=halo,
        CHANNELS=channels,
        CHANNELS_LAST=channels_last,
        WORD=word,
        VECTOR=vector,
        BLOCK=block,
        num_warps=4,
    )
    return patches
