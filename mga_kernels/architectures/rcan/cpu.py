"""RCAN in convolutions of our own. Channel attention is measured by one chain and applied at the head of the next."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import each
from ...runtimes.cpu.layers import Conv, plus_mean, weight_and_bias
from ...runtimes.cpu.pairs import Grid
from ...runtimes.cpu.plan import Buffers, MakeChain
from ...runtimes.cpu.rescaled import Given, RescaledChain, TrunkWeights, sums
from ...runtimes.cpu.stages import Stage, stepwise
from ...runtimes.cpu.storage import Stored
from . import network as rcan

PLANES = ("raw", "block", "group")  # two of each, but one where layers may write over what they no longer read


def _stages(block: rcan.RCAB, x: str) -> list[Stage]:
    """An RCAB up to its attention: two convolutions, the second measured."""
    first, _, second, _ = block.rcab
    return [Stage(Conv.of(first, 0.0), x, "hidden"), Stage(Conv.of(second), "hidden", "to", measure=True)]


def _gates(attention: nn.Sequential, area: Grid, total: Tensor) -> tuple[Tensor, Tensor]:
    """Factors and offsets (count, C) of what the second convolution made, from its ``sums``."""
    means = (total[0] / math.prod(area.size)).float()
    # 1x1 convolutions of one pixel, for which PyTorch's products of matrices are several times faster.
    (squeeze, squeezed), (excite, excited) = (weight_and_bias(attention[i]) for i in (1, 3))
    hidden = F.linear(means, squeeze.flatten(1), squeezed).relu()
    gates = F.linear(hidden, excite.flatten(1), excited).sigmoid()
    return gates, torch.zeros_like(gates)


def _other(buffers: Buffers, name: str, number: int) -> Stored:
    """Two that take turns, or the only one."""
    return buffers.get(f"{name} {number % 2}", buffers[f"{name} 0"])


class _Trunk:
    """The groups of one half.

    A chain begins with the attention of the block before it, whose result with its skip is what the block reads; at the
    first block of a group, with the convolution and the skip of the group before it as well. ``ends(stages, whole)`` is
    a chain that begins with the end of the last group, and writes the convolution behind the groups, with the long
    skip, to slot ``out``.

    ``first``: the convolution of slot "image" that made ``x``, where it is to be made again for the long skip: that
    takes less than a plane to keep it in. Groups, and what is slot ``out`` elsewhere, are then written over ``x``.
    """

    def __init__(self, half: rcan.BaseNet | rcan.RefineNet, make: MakeChain, first: Conv | None = None):
        self.make, self.channels = make, half.conv_after_body.out_channels
        bodies = each(rcan.ResidualGroup, half.body)
        groups = [each(rcan.RCAB, body.residual_group) for body in bodies]
        self.attentions = [
            [cast(rcan.ChannelAttention, block.rcab[-1]).attention for block in blocks] for blocks in groups
        ]
        self.begin = make(_stages(groups[0][0], "x"), ["x", "to"])
        self.chains = [
            [self._rescaled(_stages(block, "scaled"), ["scaled", "to"]) for block in blocks[1:]] for blocks in groups
        ]
        self.over_x = first is not None
        group, out, skip = ("group", "out", "x") if first is None else ("before",) * 3
        ends = [Conv.of(body.conv) for body in bodies]
        self.joints = [
            self._rescaled(
                [Stage(end, "scaled", group, "before"), *_stages(blocks[0], group)],
                ["before", "to"] if self.over_x else ["before", "group", "to"],
            )
            for end, blocks in zip(ends, groups[1:], strict=False)
        ]
        self.end = [
            Stage(ends[-1], "scaled", "group", "before"),
            *([] if first is None else [Stage(first, "image", "before")]),
            Stage(Conv.of(half.conv_after_body), "group", out, skip),
        ]

    def _rescaled(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        return RescaledChain(self.make, self.channels, 1.0, True, stages, whole)

    def ends(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        return self._rescaled([*self.end, *stages], ["before", "image" if self.over_x else "x", *whole])

    def __call__(self, area: Grid, x: Stored, buffers: Buffers, end: RescaledChain, given: Given, gain: float) -> None:
        raw, before, last = buffers["raw 0"], x, x
        total = sums(area, self.begin(area, {"x": x, "to": raw}), raw)
        count = 0
        for i, (attentions, chains) in enumerate(zip(self.attentions, self.chains, strict=True)):
            for attention, chain in zip(attentions, chains, strict=False):
                count += 1
                to, scaled = _other(buffers, "raw", count), _other(buffers, "block", count)
                slots: Given = {"raw": raw, "skip": last, "scaled": scaled, "to": to}
                total = sums(area, chain(area, slots, *_gates(attention, area, total)), to)
                raw, last = to, scaled
            factors = _gates(attentions[-1], area, total)
            if i < len(self.joints):
                count += 1
                to = _other(buffers, "raw", count)
                group = x if self.over_x else _other(buffers, "group", i)
                slots = {"raw": raw, "skip": last, "before": before, "group": group, "to": to}
                total = sums(area, self.joints[i](area, slots, *factors), to)
                raw, before, last = to, group, group
        end(area, {**given, "raw": raw, "skip": last, "before": before, "x": x}, *factors, gain=gain)


class RcanWeights(TrunkWeights[rcan.BaseNet, rcan.RefineNet]):
    faster = "float32"
    any_settings = True

    def _planes_of(self, trunk: _Trunk) -> list[str]:
        planes = PLANES[:-1] if trunk.over_x else PLANES
        return [f"{name} {i}" for name in planes for i in range(1 if self.storage.in_place else 2)]

    def prepare_base(self, base: rcan.BaseNet) -> None:
        first = self.less_mean(base.conv_first, base.mean, factor=self.value_range / 255)
        self.trunk = _Trunk(base, self.chain, None if self.shallow else first)
        self.channels, self.unshuffled = self.trunk.channels, base.unshuffled
        self.base_planes = {**dict.fromkeys(self._planes_of(self.trunk), self.channels), **self.shallow}
        self.head = self.chain([Stage(first, "image", "x")], ["image", "x"])
        self.end = self.trunk.ends([], [] if self.trunk.over_x else ["out"])
        upsampler = stepwise(base.upsampler, "out", base.scale * base.unshuffled, plus_mean(base.conv_last, base.mean))
        self.enlarging = self.chain(upsampler, ["out", "picture"], self._planes_of(self.trunk))

    def prepare_refine(self, refine: rcan.RefineNet) -> None:
        self.refine_trunk = _Trunk(refine, self.chain)
        self.refine_planes = dict.fromkeys((*self._planes_of(self.refine_trunk), "fused", "tight"), self.channels)
        fuse = self.closing_pair(refine.conv1, refine.conv2)
        fusing = [Stage(fuse[0], "out", "hidden"), Stage(fuse[1], "hidden", "fused", crop=1)]
        last = plus_mean(refine.conv_last, refine.mean)
        upsampler = stepwise(refine.upsampler, "fused", self.config.scale, last)
        self.refine_end = self.refine_trunk.ends([*fusing, *upsampler], ["picture"])
        self.fusing = self.refine_trunk.ends(fusing, ["fused"])
        self.upsampler = self.chain(upsampler, ["fused", "picture"])
