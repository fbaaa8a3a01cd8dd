"""Checks on the grid of p x p cells and on indices into it, which several operators share."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..quantities import integer


def describe(value: object) -> str:
    """A tensor as shape and dtype, anything else as its type, for messages."""
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def check_count(op: str, name: str, value: int, minimum: int) -> int:
    """The number, of whatever library, as what the operator takes: an int, or a size that is being traced."""
    count = value if type(value) is int or isinstance(value, torch.SymInt) else integer(value)
    if count is None or count < minimum:
        raise InputError(f"{op}: {name} must be a whole number of {minimum} or more, got {value!r}")
    return count


def check_divides(op: str, what: str, height: int, width: int, side: int) -> None:
    if height % side or width % side:
        raise InputError(
            f"{op}: a {height}x{width} {what} does not divide into cells of {side}x{side}; "
            f"pad it to {-(-height // side) * side}x{-(-width // side) * side} first"
        )


def check_indices(op: str, indices: object, batch: int) -> None:
    if not isinstance(indices, Tensor) or indices.ndim != 2 or indices.shape[0] != batch:
        raise InputError(f"{op}: indices must be (B, K) with B = {batch}, got {describe(indices)}")
    if indices.dtype != torch.int32:
        raise InputError(f"{op}: indices must be int32, as select_patches returns them, got {indices.dtype}")


def check_same_device(op: str, first: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.device != first.device:
            raise InputError(f"{op}: all tensors must be on one device, got {first.device} and {other.device}")


def check_inside(op: str, indices: Tensor, rows: int, columns: int) -> None:
    """Refuse indices outside the grid, where that can be known without waiting for a device or a trace."""
    if indices.device.type != "cpu" or torch.compiler.is_compiling() or type(indices) is not Tensor:
        return
    outside = indices[(indices < 0) | (indices >= rows * columns)]
    if len(outside):
        raise InputError(
            f"{op}: index {int(outside[0])} is outside the {rows}x{columns} grid; "
            "were the indices made for another size?"
        )


def mirror_indices(length: int, padded: int, device: torch.device) -> Tensor:
    """Indices that extend an axis by reflection without repeating the edge, however short the axis is."""
    period = max(1, 2 * (length - 1))
    index = torch.arange(padded, device=device) % period
    return torch.where(index < length, index, period - index)
