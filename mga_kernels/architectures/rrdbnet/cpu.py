"""RRDBNet in convolutions of our own.

What a dense block makes lies beside its input, so that each of its convolutions reads one part of one slot. A block of
three works in two slots: the third of them fills "wide" from behind, and its result, to which the block's input is
added, comes in that one's place at the beginning of "wide".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...networks.layers import each
from ...runtimes.cpu.layers import Conv, Scale, beside, from_bytes, weight_and_bias
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Part, Stage
from . import network as rrdbnet


@dataclass(frozen=True)
class _Place:
    """Where a dense block works: in ``slot``, its input from channel ``x`` on, what it makes from those in ``made`` on.

    ``channels`` of its input and of what it makes each time; ``widths``: these up to where another part may begin.
    """

    slot: str
    x: int
    made: tuple[int, ...]
    channels: tuple[int, int]
    widths: tuple[int, int]

    def part(self, first: int) -> Part:
        return self.slot, first

    def reading(self, conv: nn.Module, factor: float, slope: float = 1.0) -> tuple[Conv, Part]:
        """``factor`` times the convolution of the input and of what was made so far; and where these begin."""
        weight, bias = weight_and_bias(conv)
        assert bias is not None
        (channels, growth), (wide, narrow) = self.channels, self.widths
        x, *made = weight.split([channels, *[growth] * ((weight.shape[1] - channels) // growth)], dim=1)
        parts = {self.x: beside([x], wide)}
        parts |= {first: beside([part], narrow) for first, part in zip(self.made, made, strict=False)}
        joined = torch.cat([parts[first] for first in sorted(parts)], dim=1)
        return Conv(joined * factor, bias * factor, slope), self.part(min(parts))

    def stages(self, block: rrdbnet.DenseBlock) -> list[Stage]:
        """The first four convolutions, with the additions of ESRGAN+."""
        stages = []
        for number, first in enumerate(self.made, start=1):
            made = self.part(first)
            stages.append(Stage(*self.reading(getattr(block, f"conv{number}"), 1.0, rrdbnet.SLOPE), made))
            if block.plus and number == 2:
                stages.append(Stage(Conv.of(block.conv1x1), self.part(self.x), made, made))
            if block.plus and number == 4:
                stages.append(Stage(Scale(self.channels[1]), self.part(self.made[1]), made, made))
        return stages


def _block(block: rrdbnet.Block, places: Sequence[_Place]) -> list[Stage]:
    """From the input of the first place to the same part of it."""
    first, second, third = places
    x, middle, last = (place.part(place.x) for place in places)
    of_all = rrdbnet.RESIDUAL**2  # by which the block adds what its last convolution makes
    return [
        *first.stages(block.rdb1),
        Stage(*first.reading(block.rdb1.conv5, rrdbnet.RESIDUAL), middle, x),
        *second.stages(block.rdb2),
        Stage(*second.reading(block.rdb2.conv5, rrdbnet.RESIDUAL), last, middle),
        *third.stages(block.rdb3),
        Stage(*third.reading(block.rdb3.conv5, of_all), x, last, also=x, factors=(rrdbnet.RESIDUAL, 1.0)),
    ]


class RrdbnetWeights(PlainWeights[rrdbnet.BaseNet]):
    """``stages`` end with the first convolution once more, which takes less than to keep till then what it made."""

    def stages(self, base: rrdbnet.BaseNet) -> list[Stage]:
        blocks = each(rrdbnet.Block, base.body)
        channels = base.conv_first.out_channels, blocks[0].growth
        widths = wide, narrow = self.storage.whole(channels[0]), self.storage.whole(channels[1])
        upwards = tuple(range(wide, wide + 4 * narrow, narrow))
        places = [
            _Place("wide", 0, upwards, channels, widths),
            _Place("other", 0, upwards, channels, widths),
            _Place("wide", wide + 4 * narrow, upwards[::-1], channels, widths),
        ]
        x, shallow = ("wide", 0), ("other", 0)
        self.unshuffled = base.unshuffled
        first = from_bytes(base.conv_first, self.value_range)
        stages = [Stage(first, "image", x)]
        for block in blocks:
            stages += _block(block, places)
        return [*stages, Stage(first, "image", shallow), Stage(Conv.of(base.conv_body), x, "feature", shallow)]

    def end(self, base: rrdbnet.BaseNet) -> list[Stage]:
        stages: list[Stage] = []
        x = "feature"
        for number in range(1, base.enlargements + 1):
            conv = Conv.of_enlarged(getattr(base, f"conv_up{number}"), 2, rrdbnet.SLOPE)
            stages.append(Stage(conv, x, f"enlarged {number}"))
            x = f"enlarged {number}"
        stages.append(Stage(Conv.of(base.conv_hr, rrdbnet.SLOPE), x, "last"))
        return [*stages, Stage(Conv.of(base.conv_last, floats=True), "last", "picture")]
