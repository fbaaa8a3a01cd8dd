"""What the Triton kernels share: how a launcher becomes a torch operator, and a product that also runs interpreted.

Imported by the kernels alone, so that nothing needs Triton before one of them runs.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"  # Triton itself reads it when a kernel is declared
_LIBRARY = torch.library.Library("mga_triton", "DEF")
_INTERPRETED = tl.constexpr(INTERPRETING)


def torch_operator(fake: Callable | None = None) -> Callable[[Callable], Callable]:
    """Decorator: the launcher becomes ``torch.ops.mga_triton.<its name>``, and what calls that takes its place.

    ``fake`` gives the result's shape; without it, the launcher returns nothing and changes its first argument, which
    the call then returns. The launcher runs with the device of its first tensor made the current one.
    """

    def register(launcher: Callable) -> Callable:
        def launch(*arguments):
            with torch.cuda.device_of(arguments[0]):
                return launcher(*arguments)

        name, changed = launcher.__name__, next(iter(inspect.signature(launcher).parameters))
        mutates = () if fake else (changed,)
        _LIBRARY.define(name + torch.library.infer_schema(launcher, mutates_args=mutates))
        for device in ("CPU", "CUDA"):  # CPU tensors are for the interpreter
            _LIBRARY.impl(name, launch, device)
        torch.library.register_fake(f"mga_triton::{name}", fake or (lambda *arguments: None), lib=_LIBRARY)
        operator = getattr(torch.ops.mga_triton, name).default
        if fake:
            return operator

        def in_place(tensor: Tensor, *arguments: Any) -> Tensor:
            operator(tensor, *arguments)
            # Tell autograd, so that a graph which saved the tensor before refuses to use the changed values.
            if not torch.compiler.is_compiling() and not tensor.is_inference():
                torch.autograd.graph.increment_version(tensor)
            return tensor

        return in_place

    return register


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, accumulated in float32."""
    if _INTERPRETED:  # numpy would accumulate half precision in half precision
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


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


def copy_words(run: int, *tensors: Tensor) -> tuple[tl.dtype, int]:
    """The widest words, and how many side by side, in which runs of bytes can be moved: 16 bytes where they align.

    ``run`` divides, in bytes, the length of every run and the distance of its start from that of its tensor.
    """
    size = math.gcd(16, run, *(tensor.data_ptr() for tensor in tensors))
    return {1: tl.int8, 2: tl.int16, 4: tl.int32}.get(size, tl.int64), max(1, size // 8)


@triton.jit
def round_to_byte(value):
    """0 to 1, or NaN, in float32 -> 0 to 255, half to even, NaN to 0. The kernel must not fuse products and sums."""
    value = value * 255
    value = (value + 12582912.0) - 12582912.0  # above 2^23, floats are whole numbers
    return tl.where(value != value, 0.0, value)
