"""Triton kernel of ``dynamic_filter``: one launch, in which the coefficients of a cell stay in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import fake

CELLS = 64  # of a program


@triton.jit
def dynamic_filter_kernel(
    probability,  # (B, rows, columns)
    source,  # (B, S, rows, columns)
    weight,  # (n * n, S), contiguous
    bias,  # (n * n)
    mask,  # (B, rows, columns), contiguous
    cells,  # B * rows * columns
    rows,
    columns,
    probability_b,
    probability_y,
    probability_x,
    source_b,
    source_c,
    source_y,
    source_x,
    CHANNELS: tl.constexpr,  # S
    SIZE: tl.constexpr,  # n
    TAPS: tl.constexpr,  # power of two >= n * n
    WIDE: tl.constexpr,  # dtype of the sums
    CELLS: tl.constexpr,
):
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    x = cell % columns
    y = cell // columns % rows
    b = cell // columns // rows
    tap = tl.arange(0, TAPS)
    real = tap < SIZE * SIZE
    pixel = source + b * source_b + y * source_y + x * source_x
    filters = tl.zeros((CELLS, TAPS), WIDE) + tl.load(bias + tap, mask=real, other=0.0).to(WIDE)[None, :]
    for c in range(CHANNELS):
        value = tl.load(pixel + tl.cast(c, tl.int64) * source_c, mask=cell < cells, other=0.0).to(WIDE)
        filters += value[:, None] * tl.load(weight + tap * CHANNELS + c, mask=real, other=0.0).to(WIDE)[None, :]
    near_y = y[:, None] + (tap // SIZE - SIZE // 2)[None, :]
    near_x = x[:, None] + (tap % SIZE - SIZE // 2)[None, :]
    inside = (near_y >= 0) & (near_y < rows) & (near_x >= 0) & (near_x < columns)
    near = probability + b[:, None] * probability_b + near_y * probability_y + near_x * probability_x
    value = tl.load(near, mask=inside & (cell < cells)[:, None] & real[None, :], other=0.0).to(WIDE)
    result = tl.sum(tl.where(real[None, :], filters * value, 0.0), 1)
    tl.store(mask + cell, result.to(mask.dtype.element_ty), mask=cell < cells)


def dynamic_filter(probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mask = fake(probability, source, weight, bias)
    if mask.numel() == 0:
        return mask
    taps = weight.shape[0]
    dynamic_filter_kernel[(triton.cdiv(mask.numel(), CELLS),)](
        probability,
        source,
        weight.contiguous(),
        bias.contiguous(),
        mask,
        mask.numel(),
        *mask.shape[1:],
        *probability.stride(),
        *source.stride(),
        CHANNELS=source.shape[1],
        SIZE=round(taps**0.5),
        TAPS=triton.next_power_of_2(taps),
        WIDE=tl.float64 if mask.dtype == torch.float64 else tl.float32,
        CELLS=CELLS,
        num_warps=4,
    )
    return mask
