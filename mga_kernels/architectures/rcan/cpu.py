"""RCAN in pair planes. Channel attention is measured by one chain and applied at the head of the next."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ...networks import MaskGuidedNetwork
from ...networks.layers import upsampling_steps
from ...runtimes.cpu.chains import PairChain, Stage
from ...runtimes.cpu.divided import less_mean
from ...runtimes.cpu.pairs import Grid, PairConv, Planes, weight_and_bias
from ...runtimes.cpu.plan import Buffers, closing_pair
from ...runtimes.cpu.rescaled import Given, RescaledChain, TrunkWeights, sums
from . import network as rcan

CHANNELS = rcan.FEATURE_CHANNELS
PLANES = ("raw 0", "raw 1", "block 0", "block 1", "group 0", "group 1")


class _Block:
    """An RCAB up to its attention: two convolutions, the second measured. ``gates`` is the attention."""

    def __init__(self, block: rcan.RCAB):
        first, _, second, attention = block.rcab
        self.convolutions = PairConv.of(first, 0.0), PairConv.of(second)
        self.attention = cast(rcan.ChannelAttention, attention).attention

    def stages(self, x: str) -> list[Stage]:
        first, second = self.convolutions
        return [Stage(first, x, "hidden"), Stage(second, "hidden", "to", measure=True)]

    def gates(self, area: Grid, total: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and offsets (count, C) of what the second convolution made, from its ``sums``."""
        means = (total[0] / math.prod(area.size)).float()
        gates = self.attention[1:](means[..., None, None]).flatten(1)
        return gates, torch.zeros_like(gates)


class _Trunk:
    """The groups of one half.

    A chain begins with the attention of the block before it, whose result with its skip is what the block reads; at the
    first block of a group, with the convolution and the skip of the group before it as well. ``ends(stages, whole)`` is
    a chain that begins with the end of the last group, and writes the convolution behind the groups, with the long
    skip, to place ``out``.
    """

    def __init__(self, half: rcan.BaseNet | rcan.RefineNet):
        groups = cast(list[rcan.ResidualGroup], list(half.body))
        self.groups = [[_Block(cast(rcan.RCAB, block)) for block in group.residual_group] for group in groups]
        self.convolutions = [PairConv.of(group.conv) for group in groups]
        self.after = PairConv.of(half.conv_after_body)
        self.begin = PairChain(self.groups[0][0].stages("x"), ["x", "to"])
        self.chains = [
            [RescaledChain(CHANNELS, 1.0, True, block.stages("scaled"), ["scaled", "to"]) for block in blocks[1:]]
            for blocks in self.groups
        ]
        self.joints = [
            RescaledChain(
                CHANNELS,
                1.0,
                True,
                [Stage(conv, "scaled", "group", "before"), *blocks[0].stages("group")],
                ["before", "group", "to"],
            )
            for conv, blocks in zip(self.convolutions, self.groups[1:], strict=False)
        ]

    def parts(self) -> list[PairChain | RescaledChain]:
        return [self.begin, *(chain for chains in self.chains for chain in chains), *self.joints]

    def ends(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        head = [Stage(self.convolutions[-1], "scaled", "group", "before"), Stage(self.after, "group", "out", "x")]
        return RescaledChain(CHANNELS, 1.0, True, [*head, *stages], ["before", "x", *whole])

    def __call__(self, area: Grid, x: Planes, buffers: Buffers, end: RescaledChain, given: Given, gain: float) -> None:
        raw, before, last = buffers["raw 0"], x, x
        total = sums(area, self.begin(area, {"x": x, "to": raw}), raw)
        count = 0
        for i, (blocks, chains) in enumerate(zip(self.groups, self.chains, strict=True)):
            for block, chain in zip(blocks, chains, strict=False):
                count += 1
                to, scaled = buffers[f"raw {count % 2}"], buffers[f"block {count % 2}"]
                places: Given = {"raw": raw, "skip": last, "scaled": scaled, "to": to}
                total = sums(area, chain(area, places, *block.gates(area, total)), to)
                raw, last = to, scaled
            factors = blocks[-1].gates(area, total)
            if i < len(self.joints):
                count += 1
                to, group = buffers[f"raw {count % 2}"], buffers[f"group {i % 2}"]
                places = {"raw": raw, "skip": last, "before": before, "group": group, "to": to}
                total = sums(area, self.joints[i](area, places, *factors), to)
                raw, before, last = to, group, group
        end(area, {**given, "raw": raw, "skip": last, "before": before, "x": x}, *factors, gain=gain)


def _upsampler(half: rcan.BaseNet | rcan.RefineNet, x: str, scale: int) -> list[Stage]:
    """From place ``x`` to ``picture``."""
    stages = []
    convolutions = [layer for layer in half.upsampler if isinstance(layer, nn.Conv2d)]
    for i, (conv, step) in enumerate(zip(convolutions, upsampling_steps(scale), strict=True), start=1):
        stages.append(Stage(PairConv.of(conv, shuffle=step), x, f"enlarged {i}"))
        x = f"enlarged {i}"
    weight, bias = weight_and_bias(half.conv_last)
    assert bias is not None
    last = PairConv(weight, bias + torch.tensor(rcan.MEAN, dtype=torch.float32), floats=True)
    return [*stages, Stage(last, x, "picture")]


class RcanWeights(TrunkWeights):
    def __init__(self, network: MaskGuidedNetwork):
        super().__init__(network)
        base, refine, scale = network.base, network.refine, self.config.scale
        assert isinstance(base, rcan.BaseNet)
        assert isinstance(refine, rcan.RefineNet)
        self.trunk, self.refine_trunk = _Trunk(base), _Trunk(refine)
        self.base_planes = dict.fromkeys((*PLANES, "shallow"), CHANNELS)
        self.refine_planes = dict.fromkeys((*PLANES, "fused", "tight"), CHANNELS)
        self.head = PairChain([Stage(less_mean(base.conv_first, rcan.MEAN), "image", "x")], ["image", "x"])
        self.end = self.trunk.ends([], ["out"])
        self.end_in_picture = self.trunk.ends(_upsampler(base, "out", scale), ["out", "picture"])
        fuse = closing_pair(refine.conv1, refine.conv2)
        fusing = [Stage(fuse[0], "out", "hidden"), Stage(fuse[1], "hidden", "fused", crop=1)]
        upsampler = _upsampler(refine, "fused", scale)
        self.refine_end = self.refine_trunk.ends([*fusing, *upsampler], ["picture"])
        self.fusing = self.refine_trunk.ends(fusing, ["fused"])
        self.upsampler = PairChain(upsampler, ["fused", "picture"])
