"""Pair planes: the layout in which the CPU convolves in bf16, and a convolution prepared for it (csrc/pair_planes.h).

A vector holds 16 pixels of two channels, so the number of channels need not be a multiple of the vector width, which
costs other layouts up to a quarter of their arithmetic at 50 channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _native

VECTOR = 16


def supported() -> str | None:
    """Why convolutions in pair planes cannot run here, or None."""
    if _native.LIBRARY_ERROR is not None:
        return _native.LIBRARY_ERROR
    return None if torch.ops.mga.pair_conv_supported() else "this processor has no AVX-512 with bf16"


class Planes:
    """``data`` bf16 (ceil(channels / 2), height + 2, pitch, 2): pairs of channels with a border of zeros."""

    def __init__(self, channels: int, height: int, width: int):
        self.channels, self.height, self.width = channels, height, width
        self.data = torch.zeros(math.ceil(channels / 2), height + 2, _pitch(width), 2, dtype=torch.bfloat16)

    @staticmethod
    def pixels(height: int, width: int) -> int:
        """Pixels of a plane with its border."""
        return (height + 2) * _pitch(width)

    @property
    def pairs(self) -> int:
        return self.data.shape[0]

    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        """View (pairs, height, width, 2) of the pixels."""
        return self.data[:, 1 : 1 + (height or self.height), VECTOR : VECTOR + (width or self.width)]

    def write(self, image: Tensor) -> None:
        """Fill from (channels, h, w) with h, w no more than the planes'."""
        image = F.pad(image, (0, 0, 0, 0, 0, self.channels % 2))
        self.inner(*image.shape[1:]).copy_(image.unflatten(0, (-1, 2)).permute(0, 2, 3, 1))

    def read(self) -> Tensor:
        """(channels, height, width) float32."""
        return self.inner().permute(0, 3, 1, 2).flatten(0, 1)[: self.channels].float()


def _pitch(width: int) -> int:
    return (math.ceil(width / VECTOR) + 2) * VECTOR


def lanes(columns: Tensor) -> Tensor:
    """int16 (ceil(W / 16)): one bit for each of the booleans (W)."""
    bits = F.pad(columns.int(), (0, -len(columns) % VECTOR)).reshape(-1, VECTOR)
    words = (bits << torch.arange(VECTOR, dtype=torch.int32)).sum(dim=1)
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)


class PairConv:
    """A 1x1 or 3x3 convolution with bias and leaky ReLU, its weights (C', C, n, n) packed for ``pair_conv_``.

    ``shift`` (C') is taken off the result, so that what is stored in bf16 lies nearer to zero.
    """

    def __init__(self, weight: Tensor, bias: Tensor, slope: float = 1.0, shift: Tensor | None = None):
        channels, self.inputs, self.size, _ = weight.shape
        missing = channels % 2
        self.channels = channels + missing
        self.weight = torch.ops.mga.pack_pair_weight(weight.detach().to(torch.bfloat16).contiguous())
        ends = [bias, torch.full_like(bias, slope), torch.zeros_like(bias) if shift is None else shift]
        self.ends = F.pad(torch.stack(ends).detach().float(), (0, missing))

    @classmethod
    def of(cls, conv: nn.Module, slope: float = 1.0) -> PairConv:
        return cls(*weight_and_bias(conv), slope)

    @property
    def pairs(self) -> int:
        return math.ceil(self.inputs / 2)

    def __call__(
        self,
        out: Planes | Tensor,
        x: Planes,
        out_pair: int = 0,
        x_pair: int = 0,
        skip: Planes | None = None,
        skip_pair: int = 0,
        gate: bool = False,
        grid: Grid | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Convolve ``x`` from pair ``x_pair`` on. ``out``: planes, written from ``out_pair`` on, or float32 (C', H, W).

        ``skip`` is added before the activation, or with ``gate`` multiplied by the sigmoid of the result. ``grid`` says
        which pixels are patches; the others become zero. ``rows``, uint8 (H), says which rows are computed at all.
        """
        target = out.data if isinstance(out, Planes) else out
        torch.ops.mga.pair_conv_(
            target,
            out_pair,
            x.data,
            x_pair,
            self.pairs,
            self.weight,
            self.ends,
            self.size,
            x.width,
            None if skip is None else skip.data,
            skip_pair,
            "gate" if gate else "conv",
            None if grid is None else grid.lanes,
            rows if grid is None else grid.rows,
        )


@dataclass(frozen=True)
class Stage:
    """A convolution of a chain: the places of what it reads, writes and adds, and by how many rows it is ahead.

    A place is the number of one of the planes of the call, or after them of one of the chain's rings; pairs are the
    first ones in use there. ``gate`` as for ``PairConv``.
    """

    conv: PairConv
    x: int
    out: int
    x_pair: int = 0
    out_pair: int = 0
    skip: int = -1
    skip_pair: int = 0
    gate: bool = False
    lead: int = 0


class PairChain:
    """Convolutions row by row, one after the other, so that what lies between them stays in the cache.

    ``rings``: (pairs, rows) of what lies between, of which only the last rows are kept. A stage of ``lead`` n computes
    row y + n where those without lead compute row y, and must find there all that it reads.
    """

    def __init__(self, stages: Sequence[Stage], rings: Sequence[tuple[int, int]]):
        self.weights = [stage.conv.weight for stage in stages]
        self.ends = [stage.conv.ends for stage in stages]
        self.rings = [number for ring in rings for number in ring]
        self.stages: list[int] = []
        for stage in stages:
            self.stages += [stage.x, stage.x_pair, stage.out, stage.out_pair, stage.skip, stage.skip_pair]
            self.stages += [stage.conv.size, stage.gate, stage.lead]

    def __call__(self, planes: Sequence[Planes], grid: Grid | None = None) -> None:
        """Run over planes of the size of the first of them."""
        torch.ops.mga.pair_chain_(
            [plane.data for plane in planes],
            self.weights,
            self.ends,
            self.rings,
            self.stages,
            planes[0].height,
            planes[0].width,
            None if grid is None else grid.lanes,
            None if grid is None else grid.rows,
        )


def weight_and_bias(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight, conv.bias


class Grid:
    """Patches of ``side`` pixels side by side, ``across`` in a row, with one pixel of zeros between them.

    ``inset`` pixels at the border of each patch do not belong to it: they are written as zeros.
    """

    def __init__(self, count: int, side: int, across: int, inset: int = 0):
        self.count, self.side, self.across = count, side, across
        self.down = math.ceil(count / across)
        self.height, self.width = self.down * (side + 1) - 1, across * (side + 1) - 1
        of_patch = torch.arange(side + 1)
        inside = (of_patch >= inset) & (of_patch < side - inset)
        self.lanes = lanes(inside.repeat(across)[: self.width])
        self.rows = inside.repeat(self.down)[: self.height].to(torch.uint8)

    def patches(self, planes: Planes, first: int, pairs: int) -> Tensor:
        """View (down, across, pairs, 2, side, side) of all places of the grid."""
        step = self.side + 1
        inner = planes.data[first : first + pairs, 1 : 1 + self.down * step, VECTOR : VECTOR + self.across * step]
        cells = inner.unflatten(2, (self.across, step)).unflatten(1, (self.down, step))
        return cells[:, :, : self.side, :, : self.side].permute(1, 3, 0, 5, 2, 4)
