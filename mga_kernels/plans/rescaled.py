"""Chains behind a measurement: what a normalisation or a channel attention makes of a convolution depends on all of its
result, so it is applied at the head of the chain that follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from .chains import PairChain, Stage
from .pairs import Grid, PairScale, Planes


def is_image(area: Grid) -> bool:
    return area.down * area.across == 1


class RescaledChain:
    """``scaled`` = leaky(factor * ``raw`` + offset + ``skip``), then ``stages``.

    Of an image the first is a stage of the chain; patches have factors of their own and are rescaled before it.
    Where ``scaled`` is in ``whole``, it is kept; otherwise patches overwrite ``raw``.
    """

    def __init__(self, channels: int, slope: float, skip: bool, stages: Sequence[Stage], whole: Sequence[str]):
        self.scale, self.slope = PairScale(channels, slope), slope
        head = Stage(self.scale, "raw", "scaled", "skip" if skip else None)
        self.of_image = PairChain([head, *stages], ["raw", *(["skip"] if skip else []), *whole])
        others = [name for name in whole if name != "scaled"]
        self.of_patches = None
        if stages:
            self.of_patches = PairChain([replace(s, measure=False) for s in stages], ["scaled", *others])

    def __call__(
        self, area: Grid, given: Mapping[str, Planes | Tensor], factors: Tensor, offsets: Tensor, gain: float = 1.0
    ) -> list[Tensor]:
        """``factors`` and ``offsets`` (count, C); returns what the stages measure of an image."""
        if is_image(area):
            return self.of_image(area, given, {0: self.scale.with_factors(factors[0], offsets[0])}, gain=gain)
        raw, skip = given["raw"], given.get("skip")
        scaled = given.get("scaled", raw)
        assert isinstance(raw, Planes)
        assert isinstance(scaled, Planes)
        assert skip is None or isinstance(skip, Planes)
        area.scale(scaled, raw, factors.float(), offsets.float(), skip, self.slope)
        if self.of_patches is not None:
            self.of_patches(area, {**given, "scaled": scaled}, gain=gain)
        return []


def sums(area: Grid, measured: Sequence[Tensor], planes: Planes) -> Tensor:
    """float64 (2, count, C): sums of the values and of their squares in ``planes``, which a chain has just written."""
    return measured[-1][:, None] if is_image(area) else area.statistics(planes).double()


def normalise(area: Grid, total: Tensor, norm: nn.InstanceNorm2d) -> tuple[Tensor, Tensor]:
    """Factors and offsets (count, C) of an instance normalisation, from ``sums``."""
    mean, square = total / math.prod(area.size)
    factors = norm.weight.double() * (square - mean**2).clamp(min=0).add(norm.eps).rsqrt()
    return factors, norm.bias.double() - mean * factors


def repack(area: Grid, loose: Planes, tight: Grid, planes: Planes) -> None:
    """Patches, less the border that a convolution without padding has taken, from their raster into a denser one."""
    inset = (area.size[0] - tight.size[0]) // 2
    pairs = planes.pairs
    inner = slice(inset, inset + tight.size[0])
    tight.patches(planes, 0, pairs).copy_(area.patches(loose, 0, pairs)[..., inner, inner])
