"""Layers prepared for ``convolve_maps_``: weights packed for their tiles, epilogues in whole groups of channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.layout import GROUP
from ...ops import pack_map_weight, plain_map_weight
from ...ops.convolution.map_weight import unpack
from .layers import Conv, Layer, Scale
from .stages import Stage

AS_IT_IS = -1  # instead of one: a weight for tiles of any side, which is not transformed


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer prepared for ``convolve_maps_``."""

    weight: Tensor
    epilogue: Tensor
    outputs: int
    tile: int


_packed: WeakKeyDictionary[Layer, dict[tuple[int, int], Packed]] = WeakKeyDictionary()


def pack(layer: Layer, enlarge: int = 1, tile: int = 0, transformed: bool = True) -> Packed:
    """The layer, which several chains may have, packed once; ``enlarge``: see ``Stage``.

    ``tile``: side of its tiles, 0 for none; weights of those in tiles are kept ``transformed`` for them.
    """
    known = _packed.setdefault(layer, {})
    how = enlarge, tile if transformed or tile == 0 else AS_IT_IS
    if how not in known:
        known[how] = pack_scale(layer, layer.epilogue) if isinstance(layer, Scale) else _conv(layer, *how)
    return replace(known[how], tile=tile) if known[how].tile == AS_IT_IS else known[how]


def adding(packed: Packed, stage: Stage) -> Packed:
    """With the stage's factors of what is added."""
    if stage.factors == (1.0, 1.0):
        return packed
    added = torch.tensor(stage.factors)[:, None].expand(2, packed.epilogue.shape[1])
    return replace(packed, epilogue=torch.cat([packed.epilogue[:2], added]))


def pack_scale(layer: Scale, epilogue: Tensor) -> Packed:
    """With another epilogue than its own."""
    factors, offsets, slopes = F.pad(epilogue, (0, -layer.channels % GROUP))
    ones = torch.ones_like(offsets)
    return Packed(factors.contiguous(), torch.stack([offsets, slopes, ones, ones]), layer.channels, 0)


def _conv(layer: Conv, enlarge: int, tile: int) -> Packed:
    weight, (bias, slope, shift) = layer.weight.float(), layer.epilogue
    assert not shift.any(), "what is shifted is for bf16"
    order = _order(len(weight), layer.shuffle, enlarge)
    present = order >= 0
    weight = torch.where(present[:, None, None, None], weight[order], torch.zeros(()))
    rows = torch.stack([bias, slope])[:, order] * present
    rows = F.pad(torch.cat([rows, torch.ones_like(rows)]), (0, -rows.shape[1] % GROUP))
    if tile != AS_IT_IS:
        return Packed(pack_map_weight(weight.contiguous(), tile), rows.contiguous(), len(weight), tile)
    plain = plain_map_weight(weight)
    if layer.shuffle * enlarge == 1:
        layer.weight = unpack(plain, layer.inputs, len(weight), layer.size, tile)  # so that no other is kept for it
    return Packed(plain, rows.contiguous(), len(weight), tile)


def _order(outputs: int, shuffle: int, enlarge: int) -> Tensor:
    """Which channel of a layer stands where in the packed one, -1 for none.

    Of a pixel shuffle they are in the order row, column, channel, with whole groups of channels; of a picture, too, but
    side by side.
    """
    s = shuffle * enlarge
    if s == 1:
        return torch.arange(outputs)
    order = torch.arange(outputs).view(-1, s * s).T  # phase, channel
    return (order if enlarge > 1 else F.pad(order, (0, -order.shape[1] % GROUP), value=-1)).flatten()
