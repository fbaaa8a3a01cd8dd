"""Chains that begin by scaling what the chain before them has measured.

A normalisation or a channel attention multiplies a convolution's result by factors that depend on all of that result.
So the convolution ends a chain that measures it, and the factors are applied by the first stage of the next chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ...networks.interface import Halves
from .layers import Scale
from .pairs import Grid
from .plan import Base, Buffers, MakeChain, PairWeights, Refine
from .stages import Stage
from .storage import Chain, Storage, Stored

Given = dict[str, Stored | Tensor]


class RescaledChain:
    """``scaled`` = leaky(factor * ``raw`` + offset + ``skip``), then ``stages``.

    Of an image the first is a stage of the chain; patches have factors of their own and are rescaled before it.
    Where ``scaled`` is in ``whole``, it is kept; otherwise patches overwrite ``raw``. ``spare``: see
    ``Chain``.
    """

    def __init__(
        self,
        make: MakeChain,
        channels: int,
        slope: float,
        skip: bool,
        stages: Sequence[Stage],
        whole: Sequence[str],
        spare: Sequence[str] = (),
    ):
        self.scale, self.slope = Scale(channels, slope), slope
        head = Stage(self.scale, "raw", "scaled", "skip" if skip else None)
        self.of_image = make([head, *stages], ["raw", *(["skip"] if skip else []), *whole], spare)
        others = [name for name in whole if name != "scaled"]
        self.of_patches = None
        if stages:
            self.of_patches = make([replace(s, measure=False) for s in stages], ["scaled", *others], spare)

    def __call__(
        self, area: Grid, given: Mapping[str, Stored | Tensor], factors: Tensor, offsets: Tensor, gain: float = 1.0
    ) -> list[Tensor]:
        """``factors`` and ``offsets`` (count, C); returns what the stages measure of an image."""
        if area.is_image:
            return self.of_image(area, given, {0: self.scale.with_factors(factors[0], offsets[0])}, gain=gain)
        raw, skip = given["raw"], given.get("skip")
        scaled = given.get("scaled", raw)
        assert isinstance(raw, Stored)
        assert isinstance(scaled, Stored)
        assert skip is None or isinstance(skip, Stored)
        scaled.rescale(area, raw, factors.float(), offsets.float(), skip, self.slope)
        if self.of_patches is not None:
            self.of_patches(area, {**given, "scaled": scaled}, gain=gain)
        return []


def sums(area: Grid, measured: Sequence[Tensor], planes: Stored) -> Tensor:
    """float64 (2, count, C): sums of the values and of their squares in ``planes``, which a chain has just written."""
    return measured[-1][:, None] if area.is_image else planes.statistics(area).double()


def normalise(area: Grid, total: Tensor, norm: nn.InstanceNorm2d) -> tuple[Tensor, Tensor]:
    """Factors and offsets (count, C) of an instance normalisation, from ``sums``."""
    mean, square = total / math.prod(area.size)
    factors = norm.weight.double() * (square - mean**2).clamp(min=0).add(norm.eps).rsqrt()
    return factors, norm.bias.double() - mean * factors


def repack(area: Grid, loose: Stored, tight: Grid, planes: Stored, scale: int = 1) -> None:
    """Patches, less the border that a convolution without padding has taken, from their raster into a denser one.

    ``scale``: by which those in ``loose`` are larger than the raster's.
    """
    inset = (area.size[0] * scale - tight.size[0]) // 2
    groups = planes.groups
    inner = slice(inset, inset + tight.size[0])
    tight.patches(planes, 0, groups).copy_(area.patches(loose, 0, groups, scale)[..., inner, inner])


class TrunkWeights(PairWeights[Base, Refine]):
    """Networks that are a convolution, a trunk, and an upsampler that enlarges in steps.

    ``trunk(area, x, buffers, end, given, gain)`` runs the blocks of a half and the chain ``end`` behind them, which
    writes slot "out", and may read "image". A coarse picture is made by ``end_in_picture``, or behind ``end`` by
    ``enlarging``, where that may lie in planes of the trunk, which are of no use then. The Refine-Net's patches are
    moved together between ``fusing`` and ``upsampler``: the border that their halo leaves would be enlarged as well.
    Where ``tight`` is false ``refine_end`` does both instead.
    """

    trunk: Any
    refine_trunk: Any
    head: Chain
    end: Any
    end_in_picture: Any = None
    enlarging: Chain | None = None
    refine_end: Any
    fusing: Any
    upsampler: Chain
    tight = True
    short_chains = True

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        """Packed weights in bf16 have pairs of channels."""
        layers = () if halves.base is None else halves.base.modules()
        channels = next((layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)), 0)
        return f"there are none for {channels} channels, an odd number" if kept.narrow and channels % 2 else None

    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        shallow = buffers.get("shallow", feature)
        self.head(area, {"image": image, "x": shallow})
        given: Given = {"image": image, "out": feature}
        if picture is not None and self.enlarging is None:
            self.trunk(area, shallow, buffers, self.end_in_picture, {**given, "picture": picture}, self.gain)
            return
        self.trunk(area, shallow, buffers, self.end, given, 1.0)
        if picture is not None and self.enlarging is not None:
            self.enlarging(area, {**buffers, "out": feature, "picture": picture}, gain=self.gain)

    def refine(self, area: Grid, x: Stored, pictures: Tensor, buffers: Buffers) -> None:
        given: Given = {"out": buffers["trunk"]} if "trunk" in buffers else {}
        if area.is_image or not self.tight:
            self.refine_trunk(area, x, buffers, self.refine_end, {**given, "picture": pictures}, self.gain)
            return
        self.refine_trunk(area, x, buffers, self.fusing, {**given, "fused": buffers["fused"]}, 1.0)
        p = self.config.patch_size
        tight = area.denser((p, p))
        repack(area, buffers["fused"], tight, buffers["tight"])
        self.upsampler(tight, {"fused": buffers["tight"], "picture": pictures}, gain=self.gain)
