"""The published PAN cut in two without loss (``networks.divided``)."""

from __future__ import annotations

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
from ...networks.layers import conv, upsampling_steps
from ...networks.margins import Enlarge, Step
from ...networks.registry import Network
from . import network as pan


class PanHalf(Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        features: int = pan.FEATURE_CHANNELS,
        channels: int = pan.UPSAMPLING_CHANNELS,
        light: bool = False,
    ):
        super().__init__()
        self.parts, self.receptive_field = (features, features, 4), 2 * blocks + 3
        self.SCPA_trunk = nn.Sequential(*(pan.SCPA(features) for _ in range(blocks)))
        self.trunk_conv = conv(features, features, 3)
        if self.lighten(light, scale, features):
            return
        for i in range(1, len(upsampling_steps(scale)) + 1):
            setattr(self, f"upconv{i}", conv(features if i == 1 else channels, channels, 3))
            setattr(self, f"att{i}", pan.PixelAttention(channels))
            setattr(self, f"HRconv{i}", conv(channels, channels, 3))
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, shallow, image = state
        return self.SCPA_trunk(x), shallow, image

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow, image = state
        return self.to_image(self.trunk_conv(x) + shallow, margin) + enlarged(image, self.scale, margin)

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        for i, step in enumerate(upsampling_steps(self.scale), start=1):
            steps += [Enlarge(step, shuffle=False), getattr(self, f"upconv{i}"), getattr(self, f"att{i}")]
            steps += [leaky(pan.SLOPE), getattr(self, f"HRconv{i}"), leaky(pan.SLOPE)]
        return [*steps, self.conv_last]


class PanBase(BaseHalf, PanHalf):
    def begin(self) -> None:
        self.receptive_field += self.light is None
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        shallow = self.conv_first(image)
        return shallow, shallow, image_part(image)


class PanRefine(RefineHalf, PanHalf):
    pass


DIVIDED = Network(
    "pan-split",
    PanBase,
    PanRefine,
    **channels_of_state(2, pan.FEATURE_CHANNELS, image=True, setting="features"),
    split=(12, 4),
    working_values=1900,
    cpu=f"{__package__}.cpu:DividedPanWeights",
    layout=Layout("conv_first", r"SCPA_trunk\.", "conv_last", ("conv3",)),
)
