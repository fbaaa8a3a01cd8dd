"""``pair_chain_``: layers over one image, a row of each in turn, so that what lies between them stays in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from ...errors import InputError
from ...records import FrameRecord, SlotRecord, StageRecord
from ..grid import describe
from ..registry import Backend, Operator
from . import chain_reference
from .layout import check_planes
from .listed import ListedBackend, Mask, check_lists, check_masks, sums_of

OP = "pair_chain_"
SIZES = (0, 1, 3, 5, 9)


def pair_chain_(
    tensors: Sequence[Tensor],
    slots: Sequence[SlotRecord],
    masks: Sequence[Mask],
    weights: Sequence[Tensor],
    epilogues: Sequence[Tensor],
    stages: Sequence[StageRecord],
    frame: FrameRecord,
    gain: float = 1.0,
    added: Tensor | None = None,
) -> list[Tensor]:
    """Run ``stages`` in their order over an image of ``frame.height`` x ``frame.width`` pixels, into ``tensors``.

    ``slots``: the first are those of ``tensors``, each pair planes (bfloat16), float32 (C, H, W) or, for a stage that
    ends the chain, pictures uint8 (n, h, w, 3). The others are rings, of which nothing is left afterwards. A slot of
    scale s holds an image s times as large. ``masks``: int16 (ceil(W / 16)), a bit a pixel of a row, and uint8 (H), one
    a row. ``weights``: as ``pack_pair_weight`` makes them, empty for stages of size 0. ``epilogues``: of each stage
    float32 (3, C s^2): bias, slope and shift of each channel; of size 0 factor, offset and slope.

    A stage of size n makes of its input x and its skip, channel by channel with reach r = n // 2,

        sum[o, y, x] = sum over i, dy, dx of weight[o, i, dy, dx] * x[i, y + dy - r, x + dx - r]
        plain    out = leaky(sum + bias + skip) - shift
        gate     out = leaky(sigmoid(sum + bias) * skip) - shift
        shuffle  out[c, s y + dy, s x + dx] = leaky((sum + bias)[c s^2 + dy s + dx, y, x])
        size 0   out = leaky(factor * x + offset + skip)

    with leaky(v) = v * slope where v < 0. Beyond the image and outside the mask of its slot x is zero, and out is
    written as zero at masked pixels; masked rows are not written. In pairs, out is rounded to bfloat16 once.

    Pictures: the 3 s^2 float channels of the last stage are shuffled, and byte = round(255 * gain * value + e), half to
    even, in 0..255, where e is 0 or the bilinear enlargement of the image ``added``, uint8 (H, W, 3). ``frame`` says
    where each picture is cut out.

    Products of bfloat16 are exact, and added in float32 in the order rows of the kernel, pairs, columns, of a pair the
    odd channel first; denormal numbers are zeros. A sigmoid may differ from the definition by 2e-4 of itself.

    Returns float64 (2, C) for each stage that ``statistics`` number: sums of what it makes, before it is rounded to
    bfloat16, and of its squares, over the pixels of the mask.

    A stage must not write what it or an earlier one reads; the kernels refuse that. Raises InputError for records that
    name what is not there, and for tensors of other shapes and dtypes.
    """
    _check(tensors, slots, masks, weights, epilogues, stages)
    statistics = sums_of(OP, "stage", stages, [epilogue.shape[1] for epilogue in epilogues])
    lists = map(list, (tensors, slots, masks, weights, epilogues, stages))
    return OPERATOR(*lists, statistics, frame, float(gain), added)


def _check(
    tensors: Sequence[Tensor],
    slots: Sequence[SlotRecord],
    masks: Sequence[Mask],
    weights: Sequence[Tensor],
    epilogues: Sequence[Tensor],
    stages: Sequence[StageRecord],
) -> None:
    check_lists(OP, "stage", stages, weights, epilogues)
    if len(slots) < len(tensors):
        raise InputError(f"{OP}: {len(tensors)} tensors for {len(slots)} slots; each tensor is one")
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.dtype not in (torch.bfloat16, torch.float32, torch.uint8):
            raise InputError(f"{OP}: tensors must be planes, float32 or uint8, got {describe(tensor)}")
        if tensor.dtype == torch.bfloat16:
            check_planes(OP, "bfloat16 tensors", tensor)
    check_masks(OP, "slot", slots, masks)
    for i, stage in enumerate(stages):
        if not (0 <= stage.x < len(slots) and 0 <= stage.out < len(slots) and stage.skip < len(slots)):
            raise InputError(f"{OP}: stage {i} names slots that there are not")
        if stage.size not in SIZES:
            raise InputError(f"{OP}: the kernel size must be 1, 3, 5 or 9, or 0 for factors, got {stage.size}")


_native.register_writing(OP)
OPERATOR = Operator[list[Tensor]](OP, ListedBackend(OP), Backend(chain_reference.pair_chain_))
