"""Layers in pair planes row by row, one after the other, so that what lies between them stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .pairs import Grid, PairConv, PairScale, Planes, pitch

Part = str | tuple[str, int]  # a place, or the part of it from this pair on


@dataclass(frozen=True)
class Stage:
    """A layer of a chain, and the places that it reads, writes, and adds before its activation.

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
class _Place:
    scale: int = 1
    inset: int = 0  # pixels that patches have lost
    pairs: int = 0
    rows: int = 1  # of a ring


class PairChain:
    """``stages`` in their order. Places named in ``whole`` are given at each call, others are rings of a few rows.

    A given place is planes, or for the last stages float32 (C, sH, sW) or pictures uint8 (n, h, w, 3). Places that
    are given and read first have the scale of the image or what ``scales`` says.
    """

    def __init__(self, stages: Sequence[Stage], whole: Sequence[str], scales: Mapping[str, int] | None = None):
        self.stages, self.whole = list(stages), list(whole)
        self.places = {name: _Place((scales or {}).get(name, 1)) for name in self.whole}
        for stage in self.stages:
            x, (out, first) = self.places[_part(stage.x)[0]], _part(stage.out)
            place = self.places.setdefault(out, _Place())
            place.scale, place.inset = x.scale * stage.factor, x.inset * stage.factor + stage.crop
            place.pairs = max(place.pairs, first + math.ceil(stage.layer.channels / 2))
        self.numbers = [number for stage in self._with_leads() for number in stage]

    def _with_leads(self) -> list[list[int]]:
        """The numbers of each stage for ``pair_chain_``: the later what it writes is read, the less its lead."""
        leads = [0] * len(self.stages)
        for i in reversed(range(len(self.stages))):
            out = _part(self.stages[i].out)[0]
            place = self.places[out]
            readers = [
                (lead, reach)
                for stage, lead in zip(self.stages[i + 1 :], leads[i + 1 :], strict=True)
                for part, reach in ((stage.x, stage.layer.size // 2), (stage.skip, 0))
                if part is not None and _part(part)[0] == out
            ]
            leads[i] = max((lead + math.ceil(reach / place.scale) for lead, reach in readers), default=0)
            place.rows = max([place.rows, *(place.scale * (leads[i] - lead + 1) + reach for lead, reach in readers)])
        return [self._numbers(stage, lead) for stage, lead in zip(self.stages, leads, strict=True)]

    def _numbers(self, stage: Stage, lead: int) -> list[int]:
        layer = stage.layer
        places = [number for part in (stage.x, stage.out, stage.skip) for number in self._at(part)]
        return [*places, layer.size, stage.factor, layer.phased, stage.gate, lead]

    def _at(self, part: Part | None) -> tuple[int, int]:
        """Number of a place, and of its first pair."""
        if part is None:
            return -1, 0
        name, first = _part(part)
        return list(self.places).index(name), first

    def ring_bytes(self, width: int) -> int:
        """Memory that each thread takes for an image of this width."""
        rings = [place for name, place in self.places.items() if name not in self.whole]
        return sum(4 * ring.pairs * ring.rows * pitch(width * ring.scale) for ring in rings)

    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Planes | Tensor],
        ends: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        """Run over the patches of ``grid``; returns float64 (2, C) for each stage that measures.

        ``ends``: those of some stages, by number. ``masks``: of some places, where they are not those of the grid.
        Pictures are the floats times 255 ``gain``, plus the bilinear enlargement of ``added``, uint8 (H, W, 3).
        """
        tensors = [given[name].data for name in self.whole]  # a tensor's data is the tensor
        places: list[int] = []
        lanes: list[Tensor] = []
        rows: list[Tensor] = []
        cut: list[int] = []
        for name, place in self.places.items():
            tensor = given.get(name)
            picture = isinstance(tensor, Tensor) and tensor.dtype == torch.uint8
            if picture:
                cut = grid.cut(place.scale, place.inset)
            mask = (masks or {}).get(name) or (None if picture else grid.mask(place.scale, place.inset))
            places += [place.scale, -1 if mask is None else len(lanes), place.pairs, place.rows]
            if mask is not None:
                lanes.append(mask[0])
                rows.append(mask[1])
        measured = [i for i, stage in enumerate(self.stages) if stage.measure]
        statistics = [torch.empty(2, self.stages[i].layer.channels, dtype=torch.float64) for i in measured]
        torch.ops.mga.pair_chain_(
            tensors,
            places,
            lanes,
            rows,
            [stage.layer.weight for stage in self.stages],
            [(ends or {}).get(i, stage.layer.ends) for i, stage in enumerate(self.stages)],
            self.numbers,
            statistics,
            measured,
            grid.height,
            grid.width,
            cut,
            gain,
            added,
        )
        return statistics


def _part(part: Part) -> tuple[str, int]:
    return (part, 0) if isinstance(part, str) else part
