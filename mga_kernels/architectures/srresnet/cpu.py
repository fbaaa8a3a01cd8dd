"""SRResNet in convolutions of our own, with and without instance normalisation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from ...networks.interface import Halves
from ...runtimes.cpu.layers import Conv, from_bytes, slope_of
from ...runtimes.cpu.pairs import Grid
from ...runtimes.cpu.plan import Buffers, MakeChain, PlaneSizes
from ...runtimes.cpu.rescaled import Given, RescaledChain, TrunkWeights, normalise, sums
from ...runtimes.cpu.stages import Stage, stepwise
from ...runtimes.cpu.storage import Chain, Storage, Stored
from . import network as srresnet

TIGHT_SCALE = 4  # the 9x9 convolution sees four pixels of zeros beyond a patch, which at this scale are one LR pixel


def _upsampler(half: srresnet.BaseNet | srresnet.RefineNet, x: str, scale: int) -> list[Stage]:
    """From slot ``x`` to ``picture``."""
    return stepwise(half.upscale, x, scale, Conv.of(half.conv_output, floats=True))


class _PlainTrunk:
    """The blocks without normalisation, a chain each, from ``x`` to one of two planes.

    ``ends(stages, whole)`` is a chain that begins with the last convolution and the long skip, in slot ``out``;
    ``alone``: nothing uses the planes of the blocks before it any more.
    """

    def __init__(self, half: srresnet.BaseNet | srresnet.RefineNet, make: MakeChain):
        self.make, self.chains = make, []
        self.planes: PlaneSizes = dict.fromkeys(("block 0", "block 1"), half.conv_mid.out_channels)
        for block in cast(list[srresnet.ResidualBlock], list(half.residual)):
            first, second = Conv.of(block.conv1, slope_of(block.relu)), Conv.of(block.conv2)
            stages = [Stage(first, "x", "hidden"), Stage(second, "hidden", "next", "x")]
            self.chains.append(make(stages, ["x", "next"]))
        self.end = Stage(Conv.of(half.conv_mid), "last", "out", "x")

    def ends(self, stages: list[Stage], whole: list[str], alone: bool = False) -> Chain:
        spare = [name for name in self.planes if name != f"block {(len(self.chains) - 1) % 2}"] if alone else []
        return self.make([self.end, *stages], ["last", "x", *whole], spare)

    def __call__(self, area: Grid, x: Stored, buffers: Buffers, end: Chain, given: Given, gain: float) -> None:
        last = x
        for i, chain in enumerate(self.chains):
            following = buffers[f"block {i % 2}"]
            chain(area, {"x": last, "next": following})
            last = following
        end(area, {**buffers, **given, "last": last, "x": x}, gain=gain)


class _NormalisedTrunk:
    """The same with instance normalisation: each convolution is measured, and what it made normalised by the next.

    ``in_place``: layers of an image write over what they no longer read, and patches do where no convolution reads it.
    """

    def __init__(self, half: srresnet.BaseNet | srresnet.RefineNet, make: MakeChain, in_place: bool):
        self.make, self.channels = make, half.conv_mid.out_channels
        names = ["block 0", "raw 0"]
        if not in_place:
            names.append("block 1")
        if not in_place or isinstance(half, srresnet.RefineNet):
            names.append("raw 1")
        self.planes: PlaneSizes = dict.fromkeys(names, self.channels)
        self.norms: list[nn.InstanceNorm2d] = []
        convolutions = []
        for block in cast(list[srresnet.ResidualBlock], list(half.residual)):
            self.norms += [cast(nn.InstanceNorm2d, norm) for norm in (block.in1, block.in2)]
            convolutions += [Conv.of(block.conv1), Conv.of(block.conv2)]
        self.norms.append(cast(nn.InstanceNorm2d, half.bn_mid))
        convolutions.append(Conv.of(half.conv_mid))
        self.first = make([Stage(convolutions[0], "x", "to", measure=True)], ["x", "to"])
        # Odd ones are second in their block, behind an activation; even ones follow a block, whose sum is kept.
        self.chains = [
            RescaledChain(
                make, self.channels, srresnet.SLOPE, False, [Stage(conv, "scaled", "to", measure=True)], ["to"]
            )
            if i % 2
            else RescaledChain(
                make, self.channels, 1.0, True, [Stage(conv, "scaled", "to", measure=True)], ["scaled", "to"]
            )
            for i, conv in enumerate(convolutions)
        ][1:]

    def ends(self, stages: list[Stage], whole: list[str], alone: bool = False) -> RescaledChain:
        last = f"raw {(len(self.norms) - 1) % 2}"
        spare = [name for name in self.planes if name != (last if last in self.planes else "raw 0")] if alone else []
        renamed = [replace(s, x="scaled") if s.x == "out" else s for s in stages]
        whole = ["scaled" if name == "out" else name for name in whole]
        return RescaledChain(self.make, self.channels, 1.0, True, renamed, whole, spare)

    def __call__(self, area: Grid, x: Stored, buffers: Buffers, end: RescaledChain, given: Given, gain: float) -> None:
        raw, last = buffers["raw 0"], x
        total = sums(area, self.first(area, {"x": x, "to": raw}), raw)
        for i, chain in enumerate(self.chains, start=1):
            factors = normalise(area, total, self.norms[i - 1])
            to = buffers.get(f"raw {i % 2}", raw)
            slots: Given = {"raw": raw, "to": to}
            if i % 2 == 0:
                following = buffers.get(f"block {i // 2 % 2}", buffers["block 0"])
                slots |= {"skip": last, "scaled": following}
                last = following
            total = sums(area, chain(area, slots, *factors), to)
            raw = to
        factors = normalise(area, total, self.norms[-1])
        given = {("scaled" if name == "out" else name): planes for name, planes in given.items()}
        end(area, {**buffers, **given, "raw": raw, "skip": x}, *factors, gain=gain)


class SrresnetWeights(TrunkWeights[srresnet.BaseNet, srresnet.RefineNet]):
    faster = "float32"
    any_settings = True

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        if getattr(halves.base, "tanh", False):
            return "there are none that end in a hyperbolic tangent"
        return super().against(halves, kept)

    def _first(self, base: srresnet.BaseNet) -> Conv:
        """The first convolution, of an image in 0..255."""
        slope = slope_of(base.relu)
        if not base.standardised:
            return from_bytes(base.conv_input, self.value_range, slope)
        mean, deviation = srresnet.IMAGENET
        scaled = copy.deepcopy(base.conv_input)
        scaled.weight.data /= torch.tensor(deviation, dtype=torch.float32)[:, None, None]
        return self.less_mean(scaled, mean, slope, factor=self.value_range / 255)

    def _trunk(self, half: srresnet.BaseNet | srresnet.RefineNet) -> _PlainTrunk | _NormalisedTrunk:
        if isinstance(half.bn_mid, nn.Identity):
            return _PlainTrunk(half, self.chain)
        return _NormalisedTrunk(half, self.chain, self.storage.in_place)

    def prepare_base(self, base: srresnet.BaseNet) -> None:
        self.trunk, self.channels = self._trunk(base), base.conv_mid.out_channels
        self.base_planes = {**self.trunk.planes, **self.shallow}
        self.head = self.chain([Stage(self._first(base), "image", "x")], ["image", "x"])
        self.end = self.trunk.ends([], ["out"])
        upsampler = _upsampler(base, "out", self.config.scale)
        self.end_in_picture = self.trunk.ends(upsampler, ["out", "picture"], alone=True)

    def prepare_refine(self, refine: srresnet.RefineNet) -> None:
        self.tight = self.config.scale == TIGHT_SCALE
        self.refine_trunk = self._trunk(refine)
        self.refine_planes = {**self.refine_trunk.planes, **dict.fromkeys(("trunk", "fused", "tight"), self.channels)}
        fuse = self.closing_pair(refine.conv1, refine.conv2)
        fusing = [Stage(fuse[0], "out", "hidden"), Stage(fuse[1], "hidden", "fused", crop=1)]
        upsampler = _upsampler(refine, "fused", self.config.scale)
        self.refine_end = self.refine_trunk.ends([*fusing, *upsampler], ["out", "picture"])
        self.fusing = self.refine_trunk.ends(fusing, ["out", "fused"])
        self.upsampler = self.chain(upsampler, ["fused", "picture"])
