"""Triton kernel of ``image_to_input``: one pass, in which a program makes a piece of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import piece_of_row
from .reference import fake

BLOCK = 1024  # elements of a program


@triton.jit
def image_to_input_kernel(
    image,  # (B, H, W, 3) uint8
    target,  # (B, rows, columns, 3), contiguous
    image_height,
    image_width,
    rows,
    columns,
    pieces,  # of a row
    scale,
    stride_b,
    stride_y,
    stride_x,
    stride_c,
    PACKED: tl.constexpr,  # stride_x is 3 and stride_c is 1
    BLOCK: tl.constexpr,
):
    b, y, element = piece_of_row(rows, pieces, BLOCK)
    x = element // 3
    period_y = tl.maximum(1, 2 * (image_height - 1))
    period_x = tl.maximum(1, 2 * (image_width - 1))
    source_y = tl.minimum(y % period_y, period_y - y % period_y)
    source_x = tl.minimum(x % period_x, period_x - x % period_x)
    row = image + b * stride_b + source_y.to(tl.int64) * stride_y
    wanted = element < columns * 3
    inside = element < image_width * 3
    if PACKED:  # the photograph itself in vectors, its reflection byte by byte
        value = tl.load(row + element, mask=inside, other=0).to(tl.float32)
        mirrored = tl.load(row + (source_x * 3 + element % 3), mask=wanted & (element >= image_width * 3), other=0)
        value = tl.where(inside, value, mirrored.to(tl.float32))
    else:
        source = source_x.to(tl.int64) * stride_x + (element % 3).to(tl.int64) * stride_c
        value = tl.load(row + source, mask=wanted, other=0).to(tl.float32)
    target += (b * rows + y) * columns * 3 + element
    tl.store(target, (value * scale).to(target.dtype.element_ty), mask=wanted)


def image_to_input(image: Tensor, height: int, width: int, value_range: float, dtype: torch.dtype) -> Tensor:
    result = fake(image, height, width, value_range, dtype)
    if result.numel() == 0:
        return result
    pieces = triton.cdiv(width * 3, BLOCK)
    image_to_input_kernel[(image.shape[0] * height * pieces,)](
        image,
        result,
        image.shape[1],
        image.shape[2],
        height,
        width,
        pieces,
        value_range / 255,
        *image.stride(),
        PACKED=image.stride()[2:] == (3, 1),
        BLOCK=BLOCK,
        num_warps=4,
    )
    return result
