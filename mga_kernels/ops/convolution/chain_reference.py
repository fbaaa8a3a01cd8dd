"""Definition of ``pair_chain_`` in plain PyTorch: a stage after the other over the whole image. Slow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...records import FrameRecord, SlotRecord, StageRecord
from .layout import (
    VECTOR,
    channels_of,
    enlarge,
    flush,
    leaky,
    multiply_add,
    pairs_of,
    pitch,
    pixels,
    to_bfloat16,
)
from .weight import unpack


@dataclass
class _Area:
    """A slot and its memory."""

    tensor: Tensor
    height: int
    width: int
    columns: Tensor  # bool (W): the mask
    rows: Tensor  # bool (H)

    @property
    def in_pairs(self) -> bool:
        return self.tensor.dtype == torch.bfloat16

    def read(self, first: int, pairs: int, reach: int = 0) -> Tensor:
        """float32 (2 pairs, H + 2 reach, W + 2 reach) with zeros in masked rows and beyond the first and last row."""
        view = pixels(self.tensor[first : first + pairs], self.height, self.width, reach)
        image = channels_of(view).float() * self.rows[:, None]
        return F.pad(image, (0, 0, reach, reach))

    def write(self, first: int, values: Tensor) -> None:
        """float32 (C, H, W): into pairs from ``first`` on, or into all of a tensor of floats."""
        inside = self.rows[:, None] & self.columns
        if not self.in_pairs:
            self.tensor[:, inside] = values[:, inside]
            return
        whole = -self.width % VECTOR  # what is left of the last vector is written as zeros
        rounded = F.pad(to_bfloat16(values).masked_fill(~self.columns, 0), (0, whole))
        target = pixels(self.tensor[first : first + len(values) // 2], self.height, self.width + whole)
        target[:, self.rows] = pairs_of(rounded)[:, self.rows]


def pair_chain_(
    tensors: list[Tensor],
    slots: list[SlotRecord],
    masks: list[tuple[Tensor, Tensor]],
    weights: list[Tensor],
    epilogues: list[Tensor],
    stages: list[StageRecord],
    statistics: list[Tensor],
    frame: FrameRecord,
    gain: float,
    added: Tensor | None,
) -> list[Tensor]:
    areas = [_area(tensors[i] if i < len(tensors) else None, slot, masks, frame) for i, slot in enumerate(slots)]
    for stage, weight, epilogue in zip(stages, weights, epilogues, strict=True):
        out = areas[stage.out]
        values = _values(stage, weight, epilogue, areas)
        if out.tensor.dtype == torch.uint8:
            cut(_bytes(values, stage.shuffle, gain, added), frame, out.tensor)
            continue
        if stage.statistics >= 0:
            kept = values[:, out.rows][..., out.columns].double()
            statistics[stage.statistics].copy_(torch.stack([kept.sum(dim=(1, 2)), kept.square().sum(dim=(1, 2))]))
        out.write(stage.out_pair, values)
    return statistics


def _area(tensor: Tensor | None, slot: SlotRecord, masks: list[tuple[Tensor, Tensor]], frame: FrameRecord) -> _Area:
    height, width = frame.height * slot.scale, frame.width * slot.scale
    if tensor is None:
        tensor = torch.zeros(slot.pairs, height + 2, pitch(width), 2, dtype=torch.bfloat16)
    columns, rows = torch.ones(width, dtype=torch.bool), torch.ones(height, dtype=torch.bool)
    if slot.mask >= 0:
        lanes, of_rows = masks[slot.mask]
        columns = (lanes[:, None] >> torch.arange(VECTOR, dtype=torch.int16) & 1).bool().flatten()[:width]
        rows = of_rows.bool()
    return _Area(tensor, height, width, columns, rows)


def _values(stage: StageRecord, weight: Tensor, epilogue: Tensor, areas: list[_Area]) -> Tensor:
    """What the stage makes, before it is rounded: float32 (C, H, W) of ``out``, for a picture before its shuffle."""
    x, out = areas[stage.x], areas[stage.out]
    each = 1 if out.tensor.dtype == torch.uint8 else stage.shuffle**2
    first, second, third = epilogue[..., None, None]
    channels = epilogue.shape[1] // each
    skip = areas[stage.skip].read(stage.skip_pair, channels // 2) if stage.skip >= 0 else None
    if stage.size == 0:
        values = multiply_add(x.read(stage.x_pair, channels // 2), first, second)
        return leaky(values if skip is None else values + skip, third)
    shuffle = 1 if each == 1 else stage.shuffle
    unpacked = unpack(weight, channels, stage.size, shuffle, stage.phased)
    present = unpack(torch.ones_like(weight), channels, stage.size, shuffle, stage.phased) != 0
    image = x.read(stage.x_pair, unpacked.shape[1] // 2, stage.size // 2)
    values = _convolve(image, unpacked, present) + first
    if each > 1:
        return F.pixel_shuffle(leaky(values, second)[None], shuffle)[0]
    if skip is not None:
        values = 1 / (1 + torch.exp(-values)) * skip if stage.gate else values + skip
    return leaky(values, second) - third


def _convolve(image: Tensor, weight: Tensor, present: Tensor) -> Tensor:
    """Sums in float32, each product added with one rounding, for which float64 is exact enough.

    ``image`` (2 pairs, H + 2r, W + 2r), ``weight`` (C, 2 pairs, n, n); ``present``: weights that count.
    """
    outputs, inputs, size, _ = weight.shape
    height, width = (side - size + 1 for side in image.shape[1:])
    image, weight = flush(image).double(), flush(weight.float()).double()
    sums = torch.zeros(outputs, height, width)
    for row in range(size):
        for pair in range(0, inputs, 2):
            for column in range(size):
                chosen = present[:, 0, row, column]
                for channel in (pair + 1, pair):
                    seen = image[channel, row : row + height, column : column + width]
                    products = weight[chosen, channel, row, column, None, None] * seen
                    sums[chosen] = flush((sums[chosen].double() + products).float())
    return sums


def _bytes(values: Tensor, scale: int, gain: float, added: Tensor | None) -> Tensor:
    """(3 s^2, H, W) -> uint8 (3, s H, s W). A channel that makes their number even is left out."""
    large = F.pixel_shuffle(values[None, : 3 * scale**2], scale)[0]
    factor = torch.tensor(255.0) * torch.tensor(gain, dtype=torch.float32)
    beside = torch.zeros_like(large) if added is None else enlarge(added.permute(2, 0, 1).float(), *large.shape[1:])
    return multiply_add(large, factor, beside).nan_to_num(nan=0.0).clamp(0, 255).round().to(torch.uint8)


def cut(image: Tensor, frame: FrameRecord, pictures: Tensor) -> None:
    height, width = pictures.shape[1:3]
    for i, picture in enumerate(pictures):
        top = i // frame.across * frame.step_y + frame.inset
        left = i % frame.across * frame.step_x + frame.inset
        picture.copy_(image[:, top : top + height, left : left + width].permute(1, 2, 0))
