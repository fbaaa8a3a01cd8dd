"""The published RCAN cut in two without loss (``networks.divided``)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...networks.divided import BaseHalf, Half, Layout, RefineHalf, State, channels_of_state, step_of
from ...networks.layers import conv, mean_like, stepwise_upsampler
from ...networks.margins import Step
from ...networks.registry import Network
from . import network as rcan


class _Rcan(Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        blocks_per_group: int = rcan.BLOCKS_PER_GROUP,
        channels: int = rcan.FEATURE_CHANNELS,
        squeezed: int = rcan.FEATURE_CHANNELS // rcan.REDUCTION,
        mean: Sequence[float] = rcan.MEAN,
        light: bool = False,
    ):
        super().__init__()
        self.parts, self.mean = (channels, channels), tuple(mean)
        groups = (rcan.ResidualGroup(blocks_per_group, channels, squeezed) for _ in range(blocks))
        self.body = nn.Sequential(*groups)
        self.conv_after_body = conv(channels, channels, 3)
        if self.lighten(light, scale, channels):
            return
        self.upsampler = stepwise_upsampler(channels, scale)
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, shallow = state
        return self.body(x), shallow

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow = state
        image = self.to_image(self.conv_after_body(x) + shallow, margin)
        return image + mean_like(image, self.mean)

    def steps(self) -> list[Step]:
        return [*map(step_of, self.upsampler), self.conv_last]


class RcanBase(BaseHalf, _Rcan):
    def begin(self) -> None:
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        shallow = self.conv_first(image - mean_like(image, self.mean))
        return shallow, shallow


class RcanRefine(RefineHalf, _Rcan):
    pass


DIVIDED = Network(
    "rcan-split",
    RcanBase,
    RcanRefine,
    **channels_of_state(2, rcan.FEATURE_CHANNELS),
    split=(7, 3),
    value_range=255.0,
    working_values=2400,
    layout=Layout("conv_first", r"body\.", "conv_last", ("conv",)),
)
