"""SPAN in convolutions of our own."""

from __future__ import annotations

import copy

from ...networks.interface import Halves
from ...runtimes.cpu.layers import Conv, beside, weight_and_bias
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Part, Stage, against_shuffle
from ...runtimes.cpu.storage import Storage
from . import network as span


class SpanWeights(PlainWeights[span.BaseNet]):
    """What the last but one convolution reads lies in slot "parts", where blocks write it to."""

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        return super().against(halves, kept) or against_shuffle(halves.config.scale)

    def stages(self, base: span.BaseNet) -> list[Stage]:
        part = self.storage.whole(base.conv_1.out_channels)
        shallow, second, early, first = (("parts", number * part) for number in range(4))
        conv = copy.deepcopy(base.conv_1)
        conv.weight.data *= base.value_range
        head = self.less_mean(conv, base.mean, factor=self.value_range / 255)
        stages = [Stage(head, "image", shallow)]
        x: Part = shallow
        for number in range(1, base.blocks + 1):
            block, last = getattr(base, f"block_{number}"), number == base.blocks
            inner: Part = first if last else f"first {number}"
            out: Part = early if number == 1 else f"block {number}"
            stages += [
                Stage(Conv.of(block.c1), x, inner, silu=True),
                Stage(Conv.of(block.c2), inner, f"second {number}", silu=True),
                Stage(Conv.of(block.c3), f"second {number}", out, x, attention=True),
            ]
            x = out
        weight, bias = weight_and_bias(base.conv_cat)
        joined = Conv(beside(weight.chunk(4, dim=1), part), bias)
        return [
            *stages,
            Stage(Conv.of(base.conv_2), x, second),
            Stage(joined, "parts", "feature"),
            Stage(Conv.of(base.upsampler[0]), "feature", "picture", enlarge=self.config.scale),
        ]
