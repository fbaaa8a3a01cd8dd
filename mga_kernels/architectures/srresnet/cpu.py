"""SRResNet in pair planes, with and without instance normalisation."""

from __future__ import annotations

from typing import ClassVar, cast

from torch import nn

from ...networks import MaskGuidedNetwork
from ...networks.layers import upsampling_steps
from ...runtimes.cpu.chains import PairChain, Stage
from ...runtimes.cpu.pairs import Grid, PairConv, Planes
from ...runtimes.cpu.plan import Buffers, closing_pair, from_bytes
from ...runtimes.cpu.rescaled import Given, RescaledChain, TrunkWeights, normalise, sums
from . import network as srresnet

CHANNELS = srresnet.FEATURE_CHANNELS
TIGHT_SCALE = 4  # the 9x9 convolution sees four pixels of zeros beyond a patch, which at this scale are one LR pixel


def _upsampler(half: srresnet.BaseNet | srresnet.RefineNet, x: str, scale: int) -> list[Stage]:
    """From place ``x`` to ``picture``."""
    stages = []
    convolutions = [layer for layer in half.upscale if isinstance(layer, nn.Conv2d)]
    for i, (conv, step) in enumerate(zip(convolutions, upsampling_steps(scale), strict=True), start=1):
        stages.append(Stage(PairConv.of(conv, srresnet.SLOPE, shuffle=step), x, f"enlarged {i}"))
        x = f"enlarged {i}"
    return [*stages, Stage(PairConv.of(half.conv_output, floats=True), x, "picture")]


class _PlainTrunk:
    """The blocks without normalisation, a chain each, from ``x`` to one of two planes.

    ``ends(stages, whole)`` is a chain that begins with the last convolution and the long skip, in place ``out``.
    """

    planes: ClassVar[dict[str, int | tuple[int, int]]] = {"block 0": CHANNELS, "block 1": CHANNELS}

    def __init__(self, half: srresnet.BaseNet | srresnet.RefineNet):
        self.chains = []
        for block in cast(list[srresnet.ResidualBlock], list(half.residual)):
            first, second = PairConv.of(block.conv1, srresnet.SLOPE), PairConv.of(block.conv2)
            stages = [Stage(first, "x", "hidden"), Stage(second, "hidden", "next", "x")]
            self.chains.append(PairChain(stages, ["x", "next"]))
        self.middle = PairConv.of(half.conv_mid)

    def parts(self) -> list[PairChain]:
        return self.chains

    def ends(self, stages: list[Stage], whole: list[str]) -> PairChain:
        return PairChain([Stage(self.middle, "last", "out", "x"), *stages], ["last", "x", *whole])

    def __call__(self, area: Grid, x: Planes, buffers: Buffers, end: PairChain, given: Given, gain: float) -> None:
        last = x
        for i, chain in enumerate(self.chains):
            following = buffers[f"block {i % 2}"]
            chain(area, {"x": last, "next": following})
            last = following
        end(area, {**given, "last": last, "x": x}, gain=gain)


class _NormalisedTrunk:
    """The same with instance normalisation: each convolution is measured, and what it made normalised by the next."""

    planes: ClassVar[dict[str, int | tuple[int, int]]] = {
        name: CHANNELS for name in ("block 0", "block 1", "raw 0", "raw 1")
    }

    def __init__(self, half: srresnet.BaseNet | srresnet.RefineNet):
        self.norms: list[nn.InstanceNorm2d] = []
        convolutions = []
        for block in cast(list[srresnet.ResidualBlock], list(half.residual)):
            self.norms += [cast(nn.InstanceNorm2d, norm) for norm in (block.in1, block.in2)]
            convolutions += [PairConv.of(block.conv1), PairConv.of(block.conv2)]
        self.norms.append(cast(nn.InstanceNorm2d, half.bn_mid))
        convolutions.append(PairConv.of(half.conv_mid))
        self.first = PairChain([Stage(convolutions[0], "x", "to", measure=True)], ["x", "to"])
        # Odd ones are second in their block, behind an activation; even ones follow a block, whose sum is kept.
        self.chains = [
            RescaledChain(CHANNELS, srresnet.SLOPE, False, [Stage(conv, "scaled", "to", measure=True)], ["to"])
            if i % 2
            else RescaledChain(CHANNELS, 1.0, True, [Stage(conv, "scaled", "to", measure=True)], ["scaled", "to"])
            for i, conv in enumerate(convolutions)
        ][1:]

    def parts(self) -> list[PairChain | RescaledChain]:
        return [self.first, *self.chains]

    def ends(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        renamed = [Stage(s.layer, "scaled" if s.x == "out" else s.x, s.out, s.skip, crop=s.crop) for s in stages]
        return RescaledChain(CHANNELS, 1.0, True, renamed, ["scaled" if name == "out" else name for name in whole])

    def __call__(self, area: Grid, x: Planes, buffers: Buffers, end: RescaledChain, given: Given, gain: float) -> None:
        raw, last = buffers["raw 0"], x
        total = sums(area, self.first(area, {"x": x, "to": raw}), raw)
        for i, chain in enumerate(self.chains, start=1):
            factors = normalise(area, total, self.norms[i - 1])
            to = buffers[f"raw {i % 2}"]
            places: Given = {"raw": raw, "to": to}
            if i % 2 == 0:
                following = buffers[f"block {i // 2 % 2}"]
                places |= {"skip": last, "scaled": following}
                last = following
            total = sums(area, chain(area, places, *factors), to)
            raw = to
        factors = normalise(area, total, self.norms[-1])
        given = {("scaled" if name == "out" else name): planes for name, planes in given.items()}
        end(area, {**given, "raw": raw, "skip": x}, *factors, gain=gain)


class SrresnetWeights(TrunkWeights):
    def __init__(self, network: MaskGuidedNetwork):
        super().__init__(network)
        base, refine, scale = network.base, network.refine, self.config.scale
        assert isinstance(base, srresnet.BaseNet)
        assert isinstance(refine, srresnet.RefineNet)
        self.tight = scale == TIGHT_SCALE
        self.trunk, self.refine_trunk = (
            (_PlainTrunk if isinstance(half.bn_mid, nn.Identity) else _NormalisedTrunk)(half) for half in (base, refine)
        )
        self.base_planes = {**self.trunk.planes, "shallow": CHANNELS}
        self.refine_planes = {**self.refine_trunk.planes, "trunk": CHANNELS, "fused": CHANNELS, "tight": CHANNELS}
        head = Stage(from_bytes(base.conv_input, self.config.value_range, srresnet.SLOPE), "image", "x")
        self.head = PairChain([head], ["image", "x"])
        self.end = self.trunk.ends([], ["out"])
        self.end_in_picture = self.trunk.ends(_upsampler(base, "out", scale), ["out", "picture"])
        fuse = closing_pair(refine.conv1, refine.conv2)
        fusing = [Stage(fuse[0], "out", "hidden"), Stage(fuse[1], "hidden", "fused", crop=1)]
        upsampler = _upsampler(refine, "fused", scale)
        self.refine_end = self.refine_trunk.ends([*fusing, *upsampler], ["out", "picture"])
        self.fusing = self.refine_trunk.ends(fusing, ["out", "fused"])
        self.upsampler = PairChain(upsampler, ["fused", "picture"])
