"""Definition of ``convolve_maps_`` in plain PyTorch: direct sums, in float64 and then rounded. Slow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.layout import GROUP, PART_CHANNELS, PARTS, groups_of
from ...records import FrameRecord, LayerRecord, MapRecord
from .chain_reference import cut
from .layout import VECTOR, enlarge
from .map_layout import is_picture, read, write
from .map_weight import unpack


@dataclass
class _Place:
    """A tensor and its mask; in the place of a map of a few rows, one of all."""

    tensor: Tensor
    height: int
    width: int
    inside: Tensor  # bool (H, W): the mask
    rows: Tensor  # bool (H)

    def read(self, channel: int, channels: int) -> Tensor:
        """float32 (C, H, W) with zeros in masked rows."""
        return read(self.tensor, self.height, self.width, channel, channels) * self.rows[:, None]

    def write(self, channel: int, values: Tensor, wanted: Tensor) -> None:
        """float32 (C, H, W) where ``wanted``, bool (H, W): into a map from ``channel`` on, or into float planes."""
        if self.tensor.ndim == 3:
            chosen = wanted & self.inside if self.inside.shape == wanted.shape else wanted
            self.tensor[:, chosen] = values[:, chosen]
            return
        kept = wanted & self.rows[:, None]
        channels = groups_of(len(values)) * GROUP
        padded = F.pad(values * self.inside, (0, 0, 0, 0, 0, channels - len(values)))
        padded = torch.where(self.inside, padded, torch.zeros_like(padded))  # a mask makes zeros of NaN too
        before = read(self.tensor, self.height, self.width, channel, channels)
        write(self.tensor, torch.where(kept, padded, before), channel)


def convolve_maps_(
    tensors: list[Tensor],
    maps: list[MapRecord],
    masks: list[tuple[Tensor, Tensor]],
    weights: list[Tensor],
    epilogues: list[Tensor],
    layers: list[LayerRecord],
    tiles: list[Tensor],
    statistics: list[Tensor],
    frame: FrameRecord,
    gain: float,
    added: Tensor | None,
) -> list[Tensor]:
    places = [_place(tensor, record, masks, frame) for tensor, record in zip(tensors, maps, strict=True)]
    for layer, weight, epilogue in zip(layers, weights, epilogues, strict=True):
        out = places[layer.out]
        values = _values(layer, weight, epilogue, places)
        size = values.shape[1:]
        wanted = _wanted(tiles[layer.tiles] if layer.tiles >= 0 else None, layer.tile or 4, *size)
        if layer.patch:
            rows, columns = (_in_patches(layer, length) for length in size)
            wanted = rows[:, None] & columns
        if is_picture(out.tensor):
            image = _pixels(values, layer.shuffle, gain, added, out.tensor.dtype)
            wanted = _repeated(wanted, layer.shuffle)
            before = _whole(out.tensor, frame, *wanted.shape)
            cut(torch.where(wanted, image, before), frame, out.tensor)
            continue
        if layer.shuffle > 1:
            values, wanted = _shuffled(values, layer.shuffle), _repeated(wanted, layer.shuffle)
        if layer.statistics >= 0:
            kept = values[:, wanted & out.inside].double()
            statistics[layer.statistics].copy_(torch.stack([kept.sum(dim=1), kept.square().sum(dim=1)]))
        out.write(layer.out_channel, values, wanted)
        if layer.zeros >= 0:
            cleared = _wanted(tiles[layer.zeros], layer.tile or 4, *size)
            out.write(layer.out_channel, torch.zeros_like(values), _repeated(cleared, layer.shuffle))
    return statistics


def _place(tensor: Tensor, record: MapRecord, masks: list[tuple[Tensor, Tensor]], frame: FrameRecord) -> _Place:
    height, width = frame.height * record.scale, frame.width * record.scale
    columns, rows = torch.ones(width, dtype=torch.bool), torch.ones(height, dtype=torch.bool)
    if record.mask >= 0:
        lanes, of_rows = masks[record.mask]
        columns = (lanes[:, None] >> torch.arange(VECTOR, dtype=torch.int16) & 1).bool().flatten()[:width]
        rows = of_rows.bool()
    if tensor.ndim == 4 and not is_picture(tensor) and len(tensor) < height:
        tensor = tensor.new_full((height, *tensor.shape[1:]), float("nan"))
    return _Place(tensor, height, width, rows[:, None] & columns, rows)


def _values(layer: LayerRecord, weight: Tensor, epilogue: Tensor, places: list[_Place]) -> Tensor:
    """What the layer makes, float32 (outputs, H, W), before a shuffle."""
    bias, slope, skip_factor, also_factor = epilogue[:, : layer.outputs, None, None]
    image = places[layer.x].read(layer.x_channel, layer.inputs).double()
    if layer.size == 0:
        sums = image * weight[: layer.outputs, None, None].double()
    else:
        unpacked = unpack(weight, layer.inputs, layer.outputs, layer.size, layer.tile).double()
        padding = layer.size // 2 if layer.stride == 1 else 0
        sums = F.conv2d(image[None], unpacked, stride=layer.stride, padding=padding)[0]
        if layer.parts >= 0:
            sums = _from_parts(places[layer.parts].read(0, PART_CHANNELS).double(), sums)
    values = sums.float() + bias
    skip = None
    if layer.skip >= 0:
        skip = places[layer.skip].read(layer.skip_channel, layer.outputs) * skip_factor
    if layer.gate == 1:
        values = values.sigmoid() * skip
    elif layer.gate == 2:
        values = (values + skip) * (values.sigmoid() - 0.5)
    else:
        if skip is not None:
            values = values + skip
        if layer.also >= 0:
            values = values + places[layer.also].read(layer.also_channel, layer.outputs) * also_factor
    if layer.activation == 1:
        return F.silu(values)
    scaled = torch.where(slope == 0, torch.zeros_like(values), values * slope)
    return torch.where(values < 0, scaled, values)


def _from_parts(parts: Tensor, plain: Tensor) -> Tensor:
    """float64 (outputs, H, W): sums of the parts, but ``plain`` where one has its centre just beside the image."""
    height, width = plain.shape[1:]
    around = F.pad(parts, (3, 3, 3, 3))
    sums = torch.zeros_like(plain)
    for i, row in enumerate(PARTS):
        for j, channels in enumerate(row):
            sums += around[list(channels[: len(sums)]), 3 * i : 3 * i + height, 3 * j : 3 * j + width]
    beside = [torch.tensor([at in (2, length - 3) for at in range(length)]) for length in (height, width)]
    return torch.where(beside[0][:, None] | beside[1], plain, sums)


def _wanted(tiles: Tensor | None, side: int, height: int, width: int) -> Tensor:
    """bool (H, W): the pixels of a list of tiles."""
    down, across = -(-height // side), -(-width // side)
    chosen = torch.full((down * across,), tiles is None)
    if tiles is not None:
        chosen[tiles.long()] = True
    return _repeated(chosen.view(down, across), side)[:height, :width]


def _in_patches(layer: LayerRecord, length: int) -> Tensor:
    """bool (length): which of these rows or columns the tiles fill."""
    place = torch.arange(length) - layer.inset
    return (place >= 0) & (place % layer.step < layer.patch)


def _repeated(pixels: Tensor, times: int) -> Tensor:
    return pixels.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1)


def _shuffled(values: Tensor, s: int) -> Tensor:
    """(s^2 P, H, W) -> (P, s H, s W): channels in the order row, column, channel."""
    return F.pixel_shuffle(values.unflatten(0, (s * s, -1)).transpose(0, 1).flatten(0, 1)[None], s)[0]


def _pixels(values: Tensor, s: int, gain: float, added: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(3 s^2, H, W) -> (3, s H, s W), uint8 or float32 in [0, 1]: channels in the order row, column, colour."""
    large = _shuffled(values, s)
    of_gain = torch.tensor(gain, dtype=torch.float32)
    beside = torch.zeros_like(large)
    if added is not None:
        whole = 1 if added.dtype == torch.uint8 else 255
        beside = enlarge(whole * added.permute(2, 0, 1).float(), *large.shape[1:])
    if dtype == torch.float32:
        return (large * of_gain + beside / 255).nan_to_num(nan=0.0).clamp(0, 1)
    return (large * (torch.tensor(255.0) * of_gain) + beside).nan_to_num(nan=0.0).clamp(0, 255).round().to(torch.uint8)


def _whole(pictures: Tensor, frame: FrameRecord, height: int, width: int) -> Tensor:
    """(3, H, W): the pictures where they are cut out."""
    image = pictures.new_zeros(3, height, width)
    for i, picture in enumerate(pictures):
        top = i // frame.across * frame.step_y + frame.inset
        left = i % frame.across * frame.step_x + frame.inset
        image[:, top : top + picture.shape[0], left : left + picture.shape[1]] = picture.permute(2, 0, 1)
    return image
