"""Chains: layers of which one row each is computed in turn, so that what lies between two layers stays in the cache.

Stages name the slots that they read and write; ``PairChain`` turns the names into the records of ``pair_chain_``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops import pair_chain_
from ...ops.convolution.layout import pitch
from ...records import FrameRecord, SlotRecord, StageRecord
from .pairs import Grid, PairConv, PairScale, Planes

Part = str | tuple[str, int]  # a slot, or the part of it from this pair on


@dataclass(frozen=True)
class Stage:
    """A layer of a chain, and the slots that it reads, writes, and adds before its activation.

    ``gate``: ``skip`` is multiplied by the sigmoid of the result, not added. ``crop``: a convolution without padding,
    whose patches lose so many pixels on each side. ``measure``: sums of the results and of their squares are returned.
    ``enlarge`` s: the layer's 3 s^2 channels are a picture after a pixel shuffle.
    """

    layer: PairConv | PairScale
    x: Part
    out: Part
    skip: Part | None = None
    gate: bool = False
    crop: int = 0
    measure: bool = False
    enlarge: int = 1

    @property
    def factor(self) -> int:
        """By which the output is larger than the input."""
        return self.layer.shuffle * self.enlarge


@dataclass
class _Slot:
    scale: int = 1
    inset: int = 0  # pixels that patches have lost
    pairs: int = 0
    rows: int = 1  # of a ring


class PairChain:
    """``stages`` in their order. The tensors of ``external`` slots come with each call, the other slots are rings.

    A given tensor is planes, or for the last stages float32 (C, sH, sW) or pictures uint8 (n, h, w, 3). Slots that
    are given and read first have the scale of the image or what ``scales`` says. docs/architecture.md has an example.
    """

    def __init__(self, stages: Sequence[Stage], external: Sequence[str], scales: Mapping[str, int] | None = None):
        self.stages, self.external = list(stages), list(external)
        self.slots = {name: _Slot((scales or {}).get(name, 1)) for name in self.external}
        for stage in self.stages:
            x, (out, first) = self.slots[_part(stage.x)[0]], _part(stage.out)
            slot = self.slots.setdefault(out, _Slot())
            slot.scale, slot.inset = x.scale * stage.factor, x.inset * stage.factor + stage.crop
            slot.pairs = max(slot.pairs, first + math.ceil(stage.layer.channels / 2))
        self.measured = [i for i, stage in enumerate(self.stages) if stage.measure]
        self.records = [self._record(i, lead) for i, lead in enumerate(self._leads())]

    def _leads(self) -> list[int]:
        """By how many rows each stage runs ahead of the last one; also sets how many rows the rings hold.

        A stage must be ahead of each stage that reads its output by the rows that the reader's kernel reaches down. A
        ring holds the rows from the highest that a reader still needs to the one that is written.
        """
        leads = [0] * len(self.stages)
        for i in reversed(range(len(self.stages))):
            out = _part(self.stages[i].out)[0]
            slot = self.slots[out]
            readers = [
                (lead, reach)
                for stage, lead in zip(self.stages[i + 1 :], leads[i + 1 :], strict=True)
                for part, reach in ((stage.x, stage.layer.size // 2), (stage.skip, 0))
                if part is not None and _part(part)[0] == out
            ]
            leads[i] = max((lead + math.ceil(reach / slot.scale) for lead, reach in readers), default=0)
            slot.rows = max([slot.rows, *(slot.scale * (leads[i] - lead + 1) + reach for lead, reach in readers)])
        return leads

    def _record(self, number: int, lead: int) -> StageRecord:
        stage = self.stages[number]
        (x, x_pair), (out, out_pair), (skip, skip_pair) = map(self._at, (stage.x, stage.out, stage.skip))
        return StageRecord(
            x=x,
            x_pair=x_pair,
            out=out,
            out_pair=out_pair,
            skip=skip,
            skip_pair=skip_pair,
            size=stage.layer.size,
            shuffle=stage.factor,
            phased=stage.layer.phased,
            gate=stage.gate,
            lead=lead,
            statistics=self.measured.index(number) if stage.measure else -1,
        )

    def _at(self, part: Part | None) -> tuple[int, int]:
        """Number of a slot, and of its first pair."""
        if part is None:
            return -1, 0
        name, first = _part(part)
        return list(self.slots).index(name), first

    def ring_bytes(self, width: int) -> int:
        """Memory that each thread takes for an image of this width."""
        rings = [slot for name, slot in self.slots.items() if name not in self.external]
        return sum(4 * ring.pairs * ring.rows * pitch(width * ring.scale) for ring in rings)

    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Planes | Tensor],
        epilogues: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        """Run over the patches of ``grid``; returns float64 (2, C) for each stage that measures.

        ``epilogues``: those of some stages, by number. ``masks``: of some slots, where they are not those of the grid.
        Pictures are the floats times 255 ``gain``, plus the bilinear enlargement of ``added``, uint8 (H, W, 3).
        """
        frame = FrameRecord(grid.height, grid.width)
        slots: list[SlotRecord] = []
        used: list[tuple[Tensor, Tensor]] = []
        for name, slot in self.slots.items():
            tensor = given.get(name)
            picture = isinstance(tensor, Tensor) and tensor.dtype == torch.uint8
            if picture:
                frame = grid.frame(slot.scale, slot.inset)
            mask = (masks or {}).get(name) or (None if picture else grid.mask(slot.scale, slot.inset))
            slots.append(SlotRecord(slot.scale, -1 if mask is None else len(used), slot.pairs, slot.rows))
            if mask is not None:
                used.append(mask)
        return pair_chain_(
            [given[name].data for name in self.external],  # a tensor's data is the tensor
            slots,
            used,
            [stage.layer.weight for stage in self.stages],
            [(epilogues or {}).get(i, stage.layer.epilogue) for i, stage in enumerate(self.stages)],
            self.records,
            frame,
            gain,
            added,
        )


def _part(part: Part) -> tuple[str, int]:
    return (part, 0) if isinstance(part, str) else part
