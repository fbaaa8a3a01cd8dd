"""Operators that have a kernel for the CPU, in C++, and their definition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..._native import register_fake, register_writing
from ..registry import Backend, NativeBackend, NativeInPlaceBackend, Operator


def on_cpu(
    name: str, dtype: torch.dtype, definition: Callable[..., Tensor], fake: Callable[..., Tensor] | None = None
) -> Operator[Tensor]:
    """The operator ``name`` for tensors of ``dtype``; ``fake`` is the result without its values.

    Without ``fake`` it writes into its first argument, and its name ends in _.
    """
    if fake is None:
        register_writing(name)
        return Operator[Tensor](name, NativeInPlaceBackend(name, "cpu", (dtype,)), Backend(definition))
    register_fake(name)(fake)
    return Operator[Tensor](name, NativeBackend(name, "cpu", (dtype,)), Backend(definition))
