"""Pair planes: the layout in which the CPU convolves in bf16, and layers packed for it (csrc/convolution/layout.h).

A vector holds 16 pixels of two channels, so the number of channels need not be a multiple of the vector width, which
costs other layouts up to a quarter of their arithmetic at 50 channels.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _native
from ...networks.layers import Place
from ...ops import pack_pair_weight, pair_grid_scale_, pair_grid_statistics
from ...ops.convolution.layout import VECTOR, pitch, pixels
from ...records import FrameRecord
from .layers import Conv, Layer


def supported() -> str | None:
    """Why convolutions in pair planes cannot run here, or None: with the library they run everywhere."""
    return _native.LIBRARY_ERROR


def kernels() -> str:
    """What runs the convolutions: an instruction set by its kernels' name, or the backend that MGA_BACKEND forces."""
    forced = os.environ.get("MGA_BACKEND")
    return forced if forced and forced != "cpu" else _native.convolution_kernels()[0]


def slow() -> str | None:
    """Why convolutions in pair planes should only run here where they are asked for, or None.

    BackendError for an MGA_CPU_ISA that cannot be met.
    """
    forced = os.environ.get("MGA_BACKEND")
    if forced and forced != "cpu":
        return f'MGA_BACKEND is {forced}, and no kernels but those of "cpu" are fast; runtime="own" asks for it'
    name, fast = _native.convolution_kernels()
    if fast:
        return None
    has_bf16 = _native.HOST_ERROR is None and _native.host().cpu_features().get("avx512_bf16")
    reason = f"MGA_CPU_ISA is {_native.instruction_set()}" if has_bf16 else "this processor has no AVX-512 with bf16"
    return f'{reason}, and the {name} kernels of the convolutions are slow; runtime="own" runs them all the same'


class Planes:
    """``data`` bf16 (ceil(channels / 2), height + 2, pitch, 2): pairs of channels with a border of zeros."""

    def __init__(self, channels: int, height: int, width: int):
        self.channels, self.height, self.width = channels, height, width
        self.data = torch.zeros(math.ceil(channels / 2), height + 2, pitch(width), 2, dtype=torch.bfloat16)

    @property
    def pairs(self) -> int:
        return self.data.shape[0]

    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        """View (pairs, height, width, 2) of the pixels."""
        return pixels(self.data, height or self.height, width or self.width)

    def write(self, image: Tensor) -> None:
        """Fill from (channels, h, w) with h, w no more than the planes'."""
        image = F.pad(image, (0, 0, 0, 0, 0, self.channels % 2))
        self.inner(*image.shape[1:]).copy_(image.unflatten(0, (-1, 2)).permute(0, 2, 3, 1))

    def read(self) -> Tensor:
        """(channels, height, width) float32."""
        return self.inner().permute(0, 3, 1, 2).flatten(0, 1)[: self.channels].float()


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer prepared for ``pair_chain_``: weights in bf16, in the library's own order; ``epilogue`` (3, C)."""

    weight: Tensor
    epilogue: Tensor


_packed: WeakKeyDictionary[Layer, Packed] = WeakKeyDictionary()


def pack(layer: Layer) -> Packed:
    """The layer, which several chains may have, packed once.

    One or three channels stay as they are where ``floats``; in pairs a channel of zeros joins an odd number.
    """
    if layer not in _packed:
        outputs, shuffled = layer.epilogue.shape[1], layer.shuffle**2
        missing = 0 if layer.floats and outputs in (1, 3) else outputs // shuffled % 2 * shuffled
        weight = torch.empty(0, dtype=torch.bfloat16)
        if isinstance(layer, Conv):
            weight = F.pad(layer.weight, (0, 0, 0, 0, 0, 0, 0, missing)).to(torch.bfloat16).contiguous()
            weight = pack_pair_weight(weight, layer.shuffle, layer.phased)
        _packed[layer] = Packed(weight, F.pad(layer.epilogue, (0, missing)).contiguous())
    return _packed[layer]


class Grid:
    """``count`` patches of ``height`` x ``width`` pixels, ``across`` in a row, with one pixel of zeros between them.

    A whole image is one patch. ``place``: where it is a tile of a larger one.
    """

    place: Place | None = None

    def __init__(self, count: int, size: tuple[int, int], across: int = 1):
        self.count, self.size, self.across = count, size, across
        self.down = math.ceil(count / across)
        self.height, self.width = self.down * (size[0] + 1) - 1, across * (size[1] + 1) - 1
        self._masks: dict[tuple[int, int], tuple[Tensor, Tensor] | None] = {}

    def mask(self, scale: int = 1, inset: int = 0) -> tuple[Tensor, Tensor] | None:
        """Lanes int16 and rows uint8 of the pixels of patches enlarged ``scale`` times, less ``inset`` at their border.

        None where that is all of them.
        """
        key = scale, inset
        if key not in self._masks:
            self._masks[key] = self._mask(scale, inset) if inset or self.down > 1 or self.across > 1 else None
        return self._masks[key]

    def _mask(self, scale: int, inset: int) -> tuple[Tensor, Tensor]:
        rows, columns = (self._inside(side, scale, inset) for side in self.size)
        return (
            lanes(columns.repeat(self.across)[: self.width * scale]),
            rows.repeat(self.down)[: self.height * scale].to(torch.uint8),
        )

    def _inside(self, side: int, scale: int, inset: int) -> Tensor:
        place = torch.arange((side + 1) * scale)
        return (place >= inset) & (place < side * scale - inset)

    def frame(self, scale: int, inset: int) -> FrameRecord:
        """The size, and where the pictures of the patches are."""
        step_y, step_x = ((side + 1) * scale for side in self.size)
        return FrameRecord(self.height, self.width, self.across, step_y, step_x, inset)

    def patches(self, planes: Planes, first: int, pairs: int, scale: int = 1) -> Tensor:
        """View (down, across, pairs, 2, height, width) of all places of the grid, enlarged ``scale`` times."""
        plane, row, pixel, one = planes.data.stride()
        height, width = (side * scale for side in self.size)
        steps = scale * (self.size[0] + 1) * row, scale * (self.size[1] + 1) * pixel
        shape = self.down, self.across, pairs, 2, height, width
        start = planes.data.storage_offset() + first * plane + row + VECTOR * pixel
        return planes.data.as_strided(shape, (*steps, plane, one, row, pixel), start)

    def statistics(self, x: Planes) -> Tensor:
        """float32 (2, count, C): sums over each patch of the values of each channel, and of their squares."""
        sums = pair_grid_statistics(x.data, x.pairs, self.count, *self.size, self.across)
        return sums[..., : x.channels]

    def scale(
        self, out: Planes, x: Planes, factors: Tensor, offsets: Tensor, skip: Planes | None = None, slope: float = 1.0
    ) -> None:
        """out = leaky(factor * x + offset + skip), factors and offsets float32 (count, C). ``out`` may be ``x``."""
        missing = (0, x.channels % 2)
        factors, offsets = (F.pad(values, missing).contiguous() for values in (factors, offsets))
        skipped = None if skip is None else skip.data
        pair_grid_scale_(out.data, x.data, skipped, factors, offsets, *self.size, self.across, slope)


def lanes(columns: Tensor) -> Tensor:
    """int16 (ceil(W / 16)): one bit for each of the booleans (W)."""
    bits = F.pad(columns.int(), (0, -len(columns) % VECTOR)).reshape(-1, VECTOR)
    words = (bits << torch.arange(VECTOR, dtype=torch.int32)).sum(dim=1)
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)
