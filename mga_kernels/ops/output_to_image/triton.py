"""Triton kernel of ``output_to_image``: one pass, in which a program makes a piece of a row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import piece_of_row, round_to_byte
from .reference import fake

BLOCK = 1024  # elements of a program


@triton.jit
def output_to_image_kernel(
    output,  # (B, 3, H, W)
    image,  # (B, rows, columns, 3) uint8, contiguous
    rows,
    columns,
    pieces,  # of a row
    gain,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    PACKED: tl.constexpr,  # stride_x is 3 and stride_c is 1
    BLOCK: tl.constexpr,
):
    b, y, element = piece_of_row(rows, pieces, BLOCK)
    wanted = element < columns * 3
    source = output + b * stride_b + y.to(tl.int64) * stride_y
    if PACKED:
        source += element
    else:
        source += (element // 3).to(tl.int64) * stride_x + (element % 3).to(tl.int64) * stride_c
    value = tl.load(source, mask=wanted, other=0.0).to(tl.float32) * gain
    value = tl.where(value < 0, 0.0, tl.where(value > 1, 1.0, value))  # keeps NaN
    target = image + (b * rows + y) * columns * 3 + element
    tl.store(target, round_to_byte(value).to(tl.uint8), mask=wanted)


def output_to_image(output: Tensor, height: int, width: int, gain: float) -> Tensor:
    image = fake(output, height, width, gain)
    if image.numel() == 0:
        return image
    stride_b, stride_c, stride_y, stride_x = output.stride()
    pieces = triton.cdiv(width * 3, BLOCK)
    output_to_image_kernel[(image.shape[0] * height * pieces,)](
        output,
        image,
        height,
        width,
        pieces,
        gain,
        stride_b,
        stride_c,
        stride_y,
        stride_x,
        PACKED=(stride_x, stride_c) == (3, 1),
        BLOCK=BLOCK,
        num_warps=4,
        enable_fp_fusion=False,  # each product is rounded by itself, as in the definition
    )
    return image
