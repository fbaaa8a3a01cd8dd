"""What the Triton kernels share: products, rounding, and how wide memory may be read.

Imported by the kernels alone, so that nothing needs Triton before one of them runs.
"""

from __future__ import annotations

import math
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"  # Triton itself reads it when a kernel is declared
_INTERPRETED = tl.constexpr(INTERPRETING)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, accumulated in float32."""
    if _INTERPRETED:  # numpy would accumulate half precision in half precision
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def exists(position, first, end):
    """Bits 0, 1 and 2 of the result say whether position - 1, position and position + 1 are in first .. end - 1."""
    before = (position > first) & (position <= end)
    here = (position >= first) & (position < end)
    after = (position >= first - 1) & (position < end - 1)
    return before.to(tl.int32) + here.to(tl.int32) * 2 + after.to(tl.int32) * 4


@triton.jit
def taps_seen(rows, columns):
    """Three bits for the rows and three for the columns of a 3x3 neighbourhood -> nine for its taps."""
    rows = (rows & 1) * 0b111 + (rows & 2) * (0b111000 // 2) + (rows & 4) * (0b111000000 // 4)
    return rows & (columns * 0b001001001)


def float32_precision() -> str:
    """How float32 products are made: exactly, unless torch was told that TF32 will do."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def alignment(tensor: Tensor) -> int:
    """Elements, a power of two of at most 16 bytes, that every stride of a channels-innermost tensor is a multiple of.

    Kernels receive the strides divided by it and multiply again, which shows the compiler how wide it may load.
    """
    strides = (stride for axis, stride in enumerate(tensor.stride()) if axis != 1 and tensor.shape[axis] > 1)
    return math.gcd(16 // tensor.element_size(), *strides)


def offset_type(*reach: int) -> tl.dtype:
    """int32 for offsets within a tile that reaches so many elements along its axes, int64 where they overflow."""
    return tl.int32 if sum(reach) < 2**31 else tl.int64


def channels_block(channels: int, most: int) -> int:
    """A power of two for the matrix units, at least 16, of which one or several cover the channels."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def programs_of(patches: Tensor, units: int, most: int) -> tuple[tuple[int, int], int]:
    """How many programs share the ``units`` of each patch, and how many of these, ``most`` or less, each works on."""
    block = min(most, triton.next_power_of_2(units))
    return (len(patches), triton.cdiv(units, block)), block


def copy_words(run: int, *tensors: Tensor) -> tuple[tl.dtype, int]:
    """The widest words, and how many side by side, in which runs of bytes can be moved: 16 bytes where they align.

    ``run`` divides, in bytes, the length of every run and the distance of its start from that of its tensor.
    """
    size = math.gcd(16, run, *(tensor.data_ptr() for tensor in tensors))
    return {1: tl.int8, 2: tl.int16, 4: tl.int32}.get(size, tl.int64), max(1, size // 8)


@triton.jit
def axes_of(number, CHANNELS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Channel, row and column of the elements of a patch with these numbers: (y, x, c) is their order, or (c, y, x)."""
    if CHANNELS_LAST:
        c = number % CHANNELS
        y = number // CHANNELS // ACROSS
        x = number // CHANNELS % ACROSS
    else:
        c = number // (DOWN * ACROSS)
        y = number // ACROSS % DOWN
        x = number % ACROSS
    return c, y, x


@triton.jit
def piece_of_row(rows, pieces, BLOCK: tl.constexpr):
    """Image, row and elements of it that a program works on, where ``pieces`` programs share a row."""
    piece = tl.program_id(0)
    return (piece // pieces // rows).to(tl.int64), piece // pieces % rows, piece % pieces * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def round_to_byte(value):
    """0 to 1, or NaN, in float32 -> 0 to 255, half to even, NaN to 0. The kernel must not fuse products and sums."""
    value = value * 255
    value = (value + 12582912.0) - 12582912.0  # above 2^23, floats are whole numbers
    return tl.where(value != value, 0.0, value)


@triton.jit
def finite_words(values):
    """1 where a value is finite."""
    return (tl.abs(values) < float("inf")).to(tl.int32)
