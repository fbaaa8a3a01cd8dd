"""What operators have in common that run a list of layers over a list of tensors: records, masks, sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _native, records
from ...errors import InputError
from ...records import FrameRecord, LayerRecord, MapRecord, SlotRecord, StageRecord
from ..registry import NativeBackend

Mask = tuple[Tensor, Tensor]
Ends = Sequence[SlotRecord | MapRecord]  # what layers read and write
Layers = Sequence[StageRecord | LayerRecord]


def check_lists(op: str, what: str, layers: Layers, weights: Sequence[Tensor], epilogues: Sequence[Tensor]) -> None:
    """InputError unless each layer, called ``what``, has a weight and an epilogue."""
    if not len(layers) == len(weights) == len(epilogues) or not layers:
        raise InputError(
            f"{op}: {len(layers)} {what}s, {len(weights)} weights and {len(epilogues)} epilogues; each {what} has one"
        )


def check_masks(op: str, what: str, ends: Ends, masks: Sequence[Mask]) -> None:
    if any(record.mask >= len(masks) for record in ends):
        raise InputError(f"{op}: a {what} names mask {max(record.mask for record in ends)} of {len(masks)}")


def sums_of(op: str, what: str, layers: Layers, channels: Sequence[int]) -> list[Tensor]:
    """float64 (2, channels), empty, for each of the layers whose ``statistics`` number one; InputError for a gap."""
    numbers = [layer.statistics for layer in layers]
    measured = sorted((number, i) for i, number in enumerate(numbers) if number >= 0)
    if [number for number, _ in measured] != list(range(len(measured))):
        raise InputError(f"{op}: the statistics of {what}s must be numbered 0, 1, ... without a gap")
    return [torch.empty(2, channels[i], dtype=torch.float64) for _, i in measured]


class ListedBackend(NativeBackend):
    """The kernel takes records as numbers, and masks as two lists. It writes into what it is given."""

    def __init__(self, op: str):
        super().__init__(op, "cpu", None)
        self.op, self.run = op, self._encoded

    def _encoded(
        self,
        tensors: list[Tensor],
        ends: Ends,
        masks: list[Mask],
        weights: list[Tensor],
        epilogues: list[Tensor],
        layers: Layers,
        *rest: Any,
    ) -> list[Tensor]:
        *more, statistics, frame, gain, added = rest
        assert isinstance(frame, FrameRecord)
        ends_and_masks = records.encode(ends), [lanes for lanes, _ in masks], [rows for _, rows in masks]
        listed = weights, epilogues, records.encode(layers), *more, statistics
        _native.call(self.op, tensors, *ends_and_masks, *listed, records.encode([frame]), gain, added)
        return statistics
