"""The published MSRResNet cut in two without loss (``networks.divided``)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.divided import (
    BaseHalf,
    Half,
    Layout,
    RefineHalf,
    State,
    channels_of_state,
    enlarged,
    image_part,
    leaky,
)
from ...networks.layers import ResidualBlock, conv, upsampling_steps
from ...networks.margins import Enlarge, Step
from ...networks.registry import Network
from . import network as msrresnet


class MsrresnetHalf(Half):
    def __init__(self, scale: int, blocks: int, channels: int = msrresnet.FEATURE_CHANNELS, light: bool = False):
        super().__init__()
        self.parts, self.receptive_field = (channels, 4), 2 * blocks + 2
        self.recon_trunk = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        if self.lighten(light, scale, channels):
            return
        for i, step in enumerate(upsampling_steps(scale), start=1):
            setattr(self, f"upconv{i}", conv(channels, channels * step * step, 3))
        self.HRconv = conv(channels, channels, 3)
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, image = state
        return self.recon_trunk(x), image

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, image = state
        return self.to_image(x, margin) + enlarged(image, self.scale, margin)

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        for i, step in enumerate(upsampling_steps(self.scale), start=1):
            steps += [getattr(self, f"upconv{i}"), Enlarge(step), leaky(msrresnet.SLOPE)]
        return [*steps, self.HRconv, leaky(msrresnet.SLOPE), self.conv_last]


class MsrresnetBase(BaseHalf, MsrresnetHalf):
    def begin(self) -> None:
        self.receptive_field += self.light is None
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        return F.leaky_relu(self.conv_first(image), msrresnet.SLOPE), image_part(image)


class MsrresnetRefine(RefineHalf, MsrresnetHalf):
    pass


DIVIDED = Network(
    "msrresnet-split",
    MsrresnetBase,
    MsrresnetRefine,
    **channels_of_state(1, msrresnet.FEATURE_CHANNELS, image=True),
    split=(12, 4),
    working_values=2400,
    cpu=f"{__package__}.cpu:MsrresnetWeights",
    layout=Layout("conv_first", r"recon_trunk\.", "conv_last", ("conv2",)),
)
