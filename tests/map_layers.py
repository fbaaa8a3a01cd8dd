"""What the tests of layers over float maps share: one layer from plain tensors, and what it is by definition."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mga_kernels import ops
from mga_kernels.alone.layout import BEFORE, GROUP, groups_of
from mga_kernels.ops.convolution.map_layout import empty_map, read, write
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord

Mask = tuple[Tensor, Tensor]


def map_of(image: Tensor) -> Tensor:
    """(C, H, W) as a map."""
    data = empty_map(*image.shape)
    write(data, image)
    return data


def poisoned(channels: int, height: int, width: int, value: float = float("nan")) -> Tensor:
    """A map whose pixels all hold a value, and whose border holds zeros."""
    data = empty_map(channels, height, width)
    data[:, :, BEFORE : BEFORE + width] = value
    return data


def whole(height: int, width: int, scale: int = 1) -> FrameRecord:
    """Of an image whose only picture, ``scale`` times as large, is all of it."""
    return FrameRecord(height, width, step_y=(height + 1) * scale, step_x=(width + 1) * scale)


def assert_border_is_zero(data: Tensor, width: int) -> None:
    assert not data[:, :, :BEFORE].any()
    assert not data[:, :, BEFORE + width :].any()


@dataclass
class Case:
    """A layer of random values: ``weight`` (C', C, n, n), or (C) of size 0; ``slope`` a number or (C')."""

    outputs: int
    inputs: int
    size: int
    tile: int = 0
    settings: dict = field(default_factory=dict)  # of the record
    slope: float | Tensor = 1.0
    factors: tuple[float, float] = (1.0, 1.0)
    bias: bool = True

    def __post_init__(self) -> None:
        if self.size:
            scale = (self.inputs * self.size**2) ** -0.5
            self.weight = torch.randn(self.outputs, self.inputs, self.size, self.size) * scale
        else:
            self.weight = torch.randn(self.outputs)
        self.shift = torch.randn(self.outputs) if self.bias else torch.zeros(self.outputs)

    @property
    def packed(self) -> Tensor:
        if self.size:
            return ops.pack_map_weight(self.weight, self.tile)
        return F.pad(self.weight, (0, -self.outputs % GROUP))

    @property
    def epilogue(self) -> Tensor:
        rows = torch.zeros(4, groups_of(self.outputs) * GROUP)
        rows[0, : self.outputs] = self.shift
        rows[1, : self.outputs] = self.slope
        rows[2], rows[3] = self.factors
        return rows

    def record(self, x: int = 0, out: int = 1, **settings: int) -> LayerRecord:
        kept = {"inputs": self.inputs, "outputs": self.outputs, "size": self.size, "tile": self.tile}
        return LayerRecord(x=x, out=out, **{**kept, **self.settings, **settings})

    def sums(self, image: Tensor) -> Tensor:
        """In float64, with bias, before anything joins."""
        if not self.size:
            return image.double() * self.weight.double()[:, None, None] + self.shift.double()[:, None, None]
        stride = self.settings.get("stride", 1)
        padding = self.size // 2 if stride == 1 else 0
        weight, bias = self.weight.double(), self.shift.double()
        return F.conv2d(image[None].double(), weight, bias, stride=stride, padding=padding)[0]

    def expected(self, image: Tensor, skip: Tensor | None = None, also: Tensor | None = None) -> Tensor:
        values = self.sums(image)
        gate = self.settings.get("gate", 0)
        skipped = 0 if skip is None else skip.double() * self.factors[0]
        if gate == 1:
            values = values.sigmoid() * skipped
        elif gate == 2:
            values = (values + skipped) * (values.sigmoid() - 0.5)
        else:
            values = values + skipped + (0 if also is None else also.double() * self.factors[1])
        if self.settings.get("activation", 0) == 1:
            return F.silu(values)
        slope = torch.as_tensor(self.slope, dtype=torch.float64).expand(self.outputs)[:, None, None]
        return torch.where(values < 0, values * slope, values)


def run(
    case: Case,
    image: Tensor,
    skip: Tensor | None = None,
    also: Tensor | None = None,
    tiles: Tensor | None = None,
    mask: Mask | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One layer, from (C, H, W) to (C', H, W) in a map that held NaN before, or into ``out``."""
    height, width = image.shape[1:]
    joined = [values for values in (skip, also) if values is not None]
    target = poisoned(case.outputs, height, width) if out is None else out
    record = case.record(
        skip=2 if skip is not None else -1,
        also=1 + len(joined) if also is not None else -1,
        tiles=0 if tiles is not None else -1,
    )
    ops.convolve_maps_(
        [map_of(image), target, *map(map_of, joined)],
        [MapRecord(), MapRecord(mask=0 if mask is not None else -1), *(MapRecord() for _ in joined)],
        [] if mask is None else [mask],
        [case.packed],
        [case.epilogue],
        [record],
        [] if tiles is None else [tiles],
        FrameRecord(height, width),
    )
    if target.ndim == 4:
        assert_border_is_zero(target, width)
        return read(target, height, width, 0, case.outputs)
    return target
