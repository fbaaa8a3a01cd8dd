"""``pack_pair_weight``: the weight of a convolution in the order in which ``pair_chain_`` reads it."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...errors import InputError
from ..grid import check_count, describe
from .on_cpu import on_cpu

LARGEST_BLOCK = 12  # sums that a kernel holds at a time, see csrc/convolution/layout.h


def pack_pair_weight(weight: Tensor, shuffle: int = 1, phased: bool = False) -> Tensor:
    """``weight`` bfloat16 (C' s^2, C, n, n), s = ``shuffle`` of the pixel shuffle behind it -> bfloat16, flat.

    The packed values are ``weight[c * s^2 + dy * s + dx, 2 * pair + i, row, column]``, in the order of loops

        dy, block of c, row, pair, column, dx, c of the block, i

    A block has at most 12 sums: 12 / s channels, an even number, which the blocks share out equally; one or three
    channels are a block by themselves. The channel that an odd C lacks is zeros.

    ``phased``, for s > 1 and n = 3: a convolution of an image in which each pixel is repeated s times a side, as s^2
    convolutions of the small image. Weights of row 0 are left out but for dy = 0, of row 2 but for dy = s - 1, and so
    for columns and dx.

    Raises InputError for other dtypes, or channels that are neither even nor, with s = 1, 1 or 3.
    """
    op = "pack_pair_weight"
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.dtype != torch.bfloat16 or not weight.numel():
        raise InputError(f"{op}: weight must be bfloat16 (C', C, n, n), got {describe(weight)}")
    shuffle = check_count(op, "shuffle", shuffle, 1)
    channels, rest = divmod(weight.shape[0], shuffle**2)
    odd = shuffle == 1 and channels in (1, 3)
    if weight.shape[2] != weight.shape[3] or shuffle > 3 or rest or (channels % 2 and not odd):
        raise InputError(
            f"{op}: {tuple(weight.shape)} is no square kernel with an even number of channels (or 1 or 3) times s^2 "
            f"for a shuffle s of {shuffle}, which may be 1, 2 or 3"
        )
    if phased and (shuffle == 1 or weight.shape[2] != 3):
        raise InputError(f"{op}: phases are for a 3x3 convolution with a pixel shuffle")
    return OPERATOR(weight.contiguous(), shuffle, bool(phased))


@functools.lru_cache(maxsize=64)
def order(channels: int, pairs: int, size: int, shuffle: int, phased: bool) -> Tensor:
    """int64: which element of a weight (channels * s^2, 2 * pairs, size, size) stands where in the packed one."""
    s = shuffle
    index = torch.arange(channels * s * s * 2 * pairs * size * size).reshape(channels, s, s, pairs, 2, size, size)
    parts = []
    for dy in range(s):
        for block in _blocks(channels, s):
            for row in range(size):
                if phased and not _counts(row, dy, s):
                    continue
                columns = []  # (pairs, sums, 2) each
                for column in range(size):
                    steps = [dx for dx in range(s) if not phased or _counts(column, dx, s)]
                    of_column = index[block][:, dy, steps][..., row, column]  # c, dx, pair, i
                    columns.append(of_column.permute(2, 1, 0, 3).flatten(1, 2))
                parts.append(torch.cat(columns, dim=1).flatten())
    return torch.cat(parts)


def _counts(tap: int, phase: int, s: int) -> bool:
    """Whether a row or column of the kernel has weights for a phase."""
    return tap == 1 or phase == (0 if tap == 0 else s - 1)


def _blocks(channels: int, s: int) -> list[slice]:
    if channels % 2:
        return [slice(0, channels)]
    pairs, most = channels // 2, LARGEST_BLOCK // (2 * s)
    count = math.ceil(pairs / most)
    sizes = [pairs // count + (i < pairs % count) for i in range(count)]
    ends = [2 * sum(sizes[: i + 1]) for i in range(count)]
    return [slice(end - 2 * size, end) for end, size in zip(ends, sizes, strict=True)]


def pairs_of_packed(weight: Tensor, channels: int, size: int, shuffle: int, phased: bool) -> int:
    """Pairs of input channels of a packed weight."""
    each = order(channels, 1, size, shuffle, phased).numel()
    if weight.numel() % each or not weight.numel():
        raise InputError(f"pair_chain_: weight has {weight.numel()} values; was it packed for other channels?")
    return weight.numel() // each


def unpack(weight: Tensor, channels: int, size: int, shuffle: int, phased: bool) -> Tensor:
    """The weight (channels * s^2, 2 * pairs, size, size) that was packed, with zeros where phases leave some out."""
    pairs = pairs_of_packed(weight, channels, size, shuffle, phased)
    unpacked = weight.new_zeros(channels * shuffle**2, 2 * pairs, size, size)
    unpacked.view(-1)[order(channels, pairs, size, shuffle, phased).to(weight.device)] = weight
    return unpacked


def _reference(weight: Tensor, shuffle: int, phased: bool) -> Tensor:
    outputs, inputs, size, _ = weight.shape
    padded = torch.cat([weight, weight.new_zeros(outputs, inputs % 2, size, size)], dim=1)
    chosen = order(outputs // shuffle**2, padded.shape[1] // 2, size, shuffle, phased)
    return padded.flatten()[chosen.to(weight.device)]


def _fake(weight: Tensor, shuffle: int, phased: bool) -> Tensor:
    outputs, inputs, size, _ = weight.shape
    taps = (shuffle + 2) ** 2 if phased else shuffle**2 * size**2  # of all phases of a channel
    return weight.new_empty(outputs // shuffle**2 * taps * 2 * ((inputs + 1) // 2))


OPERATOR = on_cpu("pack_pair_weight", torch.bfloat16, _reference, _fake)
