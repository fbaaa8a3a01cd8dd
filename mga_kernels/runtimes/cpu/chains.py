"""Chains: layers of which one row each is computed in turn, so that what lies between two layers stays in the cache.

Stages name the slots that they read and write; ``PairChain`` turns the names into the records of ``pair_chain_``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import _native
from ...errors import InputError
from ...ops import pair_chain_, pair_gather_
from ...ops.convolution.layout import VECTOR, pitch
from ...records import FrameRecord, SlotRecord, StageRecord
from .pairs import Grid, Planes, forced_backend, pack
from .stages import Stage, part_of
from .storage import Chain, Mask, Spare, Storage, Stored


@dataclass
class _Slot:
    scale: int = 1
    inset: int = 0  # pixels that patches have lost
    pairs: int = 0
    rows: int = 1  # of a ring


class PairChain(Chain):
    """``stages`` in their order. The tensors of ``external`` slots come with each call, the other slots are rings.

    A given tensor is planes, or for the last stages float32 (C, sH, sW) or pictures uint8 (n, h, w, 3). Slots that
    are given and read first have the scale of the image or what ``scales`` says. docs/architecture.md has an example.
    """

    def __init__(self, stages: Sequence[Stage], external: Sequence[str], scales: Mapping[str, int] | None = None):
        for stage in stages:
            if stage.attention or stage.silu or stage.stride != 1 or stage.also or stage.factors != (1.0, 1.0):
                raise InputError(
                    "convolutions in bf16 pairs have no SiLU, no attention, no stride, no second addend and no factors "
                    "of what is added; use float32"
                )
        self.external = list(external)
        self.layers = [pack(stage.layer) for stage in stages]
        self.slots: dict[str, _Slot] = {name: _Slot((scales or {}).get(name, 1)) for name in self.external}
        for stage in stages:
            x, (out, first) = self.slots[part_of(stage.x)[0]], part_of(stage.out)
            slot = self.slots.setdefault(out, _Slot())
            slot.scale, slot.inset = x.scale * stage.factor, x.inset * stage.factor + stage.crop
            slot.pairs = max(slot.pairs, first // 2 + math.ceil(stage.layer.channels / 2))
        measured = [i for i, stage in enumerate(stages) if stage.measure]
        self.records = [
            self._record(stage, lead, measured.index(i) if stage.measure else -1)
            for i, (stage, lead) in enumerate(zip(stages, self._leads(stages), strict=True))
        ]

    def _leads(self, stages: Sequence[Stage]) -> list[int]:
        """By how many rows each stage runs ahead of the last one; also sets how many rows the rings hold.

        A stage must be ahead of each stage that reads its output by the rows that the reader's kernel reaches down. A
        ring holds the rows from the highest that a reader still needs to the one that is written.
        """
        leads = [0] * len(stages)
        for i in reversed(range(len(stages))):
            out = part_of(stages[i].out)[0]
            slot = self.slots[out]
            readers = [
                (lead, reach)
                for stage, lead in zip(stages[i + 1 :], leads[i + 1 :], strict=True)
                for part, reach in ((stage.x, stage.layer.size // 2), (stage.skip, 0))
                if part is not None and part_of(part)[0] == out
            ]
            leads[i] = max((lead + math.ceil(reach / slot.scale) for lead, reach in readers), default=0)
            slot.rows = max([slot.rows, *(slot.scale * (leads[i] - lead + 1) + reach for lead, reach in readers)])
        return leads

    def _record(self, stage: Stage, lead: int, statistics: int) -> StageRecord:
        (x, x_first), (out, out_first), (skip, skip_first) = map(self.at, (stage.x, stage.out, stage.skip))
        return StageRecord(
            x=x,
            x_pair=x_first // 2,
            out=out,
            out_pair=out_first // 2,
            skip=skip,
            skip_pair=skip_first // 2,
            size=stage.layer.size,
            shuffle=stage.factor,
            phased=stage.layer.phased,
            gate=stage.gate,
            lead=lead,
            statistics=statistics,
        )

    def channels_of(self, slot: str) -> int:
        """Channels of a slot, an even number."""
        return 2 * self.slots[slot].pairs

    def ring_bytes(self, width: int) -> int:
        """Memory that each thread takes for an image of this width."""
        rings = [slot for name, slot in self.slots.items() if name not in self.external]
        return sum(4 * ring.pairs * ring.rows * pitch(width * ring.scale) for ring in rings)

    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Stored | Tensor],
        epilogues: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, Mask] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        """Run over the patches of ``grid``; returns float64 (2, C) for each stage that measures.

        ``epilogues``: those of some stages, by number. ``masks``: of some slots, where they are not those of the grid.
        Pictures are the floats times 255 ``gain``, plus the bilinear enlargement of ``added``, uint8 (H, W, 3).
        """
        frame = FrameRecord(grid.height, grid.width)
        slots: list[SlotRecord] = []
        used: list[Mask] = []
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
            [layer.weight for layer in self.layers],
            [(epilogues or {}).get(i, layer.epilogue) for i, layer in enumerate(self.layers)],
            self.records,
            frame,
            gain,
            added,
        )


class Pairs(Storage):
    """Pair planes."""

    name, step, narrow, in_place = "bfloat16", 2, True, False
    description = "bfloat16 with float32 sums, in convolutions of our own"

    def planes(self, channels: int, height: int, width: int, spare: Spare | None = None) -> Planes:
        return Planes(channels, height, width)

    def chain(self, stages: Sequence[Stage], external: Sequence[str], spare: Sequence[str] = ()) -> PairChain:
        return PairChain(stages, external)

    def gather(
        self, grid: Grid, out: Stored, x: Stored, cells: tuple[int, int], indices: Tensor, halo: int, repeated: int
    ) -> None:
        p = grid.size[0] - 2 * halo
        height, width = (count * p for count in cells)
        if repeated >= 0:
            part = x.data[repeated // 2 :]
            part[:, 0], part[:, height + 1] = part[:, 1], part[:, height]
            part[:, :, VECTOR - 1], part[:, :, VECTOR + width] = part[:, :, VECTOR], part[:, :, VECTOR + width - 1]
        pair_gather_(out.data, x.data, out.groups, height, width, indices, p, halo, grid.across)

    def room_bytes(
        self,
        chains: Iterable[Chain],
        height: int,
        width: int,
        images: bool = True,
        planes: Mapping[str, Stored] | None = None,
        side: int = 0,
    ) -> int:
        """Rows that the threads keep for themselves."""
        rings = [chain.ring_bytes(width) for chain in chains if isinstance(chain, PairChain)]
        return torch.get_num_threads() * max(rings, default=0)

    def kernels(self) -> str:
        return forced_backend() or _native.convolution_kernels()[0]
