"""SRVGGNetCompact in convolutions of our own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ...networks.interface import Halves
from ...networks.layers import each
from ...runtimes.cpu.layers import Conv, Scale, beside, from_bytes, weight_and_bias
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Part, Stage, against_shuffle
from ...runtimes.cpu.storage import Storage
from . import network as compact

COLOURS = 4  # of the image that is added, one of which is none


class CompactWeights(PlainWeights[compact.BaseNet]):
    """The image, to which the network adds, lies beside the last feature, and the last convolution enlarges both."""

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        base = halves.base
        assert isinstance(base, compact.BaseNet)
        if base.enlarged != base.scale:
            return f"there are none for what is enlarged {base.enlarged} times and shrunk to {base.scale}"
        return super().against(halves, kept) or against_shuffle(base.enlarged)

    def stages(self, base: compact.BaseNet) -> list[Stage]:
        layers = list(base.body)
        *convolutions, last = each(nn.Conv2d, layers[::2])
        feature = last.in_channels
        beside_it = self.storage.whole(feature)
        stages: list[Stage] = []
        x: Part = "image"
        activations = each(nn.PReLU, layers[1::2])
        for number, (conv, activation) in enumerate(zip(convolutions, activations, strict=True)):
            out = "feature" if conv is convolutions[-1] else f"layer {number}"
            slopes = activation.weight.detach()
            layer = Conv(*weight_and_bias(conv), slopes) if number else from_bytes(conv, self.value_range, slopes)
            stages.append(Stage(layer, x, out))
            x = out
        as_floats = Scale(COLOURS, factors=torch.tensor([self.value_range / 255] * 3 + [0.0]))
        stages.append(Stage(as_floats, "image", ("feature", beside_it)))
        return [*stages, Stage(_adding(last, base.scale, beside_it), "feature", "picture", enlarge=base.scale)]


def _adding(conv: nn.Conv2d, scale: int, before: int) -> Conv:
    """The last convolution, and the image behind ``before`` channels added to each phase of what it makes."""
    weight, bias = weight_and_bias(conv)
    image = torch.eye(3).repeat_interleave(scale**2, dim=0)[..., None, None]
    image = F.pad(image, (1, 1, 1, 1, 0, COLOURS - 3))
    return Conv(torch.cat([beside([weight], before), image], dim=1), bias)
