"""The published SRResNet cut in two without loss (``networks.divided``)."""

from __future__ import annotations

from torch import Tensor, nn

from ...networks.divided import BaseHalf, Half, Layout, RefineHalf, State, channels_of_state, step_of
from ...networks.layers import conv, stepwise_upsampler
from ...networks.margins import Step
from ...networks.registry import Network
from . import network as srresnet


class _Srresnet(Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        norm: str = "instance",
        channels: int = srresnet.FEATURE_CHANNELS,
        light: bool = False,
        prelu: bool = False,
        tanh: bool = False,
        standardised: bool = False,
    ):
        super().__init__()
        has_norm = norm == "instance"
        self.parts, self.prelu, self.tanh, self.standardised = (channels, channels), prelu, tanh, standardised
        self.residual = nn.Sequential(*(srresnet.ResidualBlock(has_norm, channels, prelu) for _ in range(blocks)))
        self.conv_mid = conv(channels, channels, 3, bias=not has_norm)
        self.bn_mid = nn.InstanceNorm2d(channels, affine=True) if has_norm else nn.Identity()
        if self.lighten(light, scale, channels):
            return
        self.upscale = stepwise_upsampler(channels, scale, not has_norm, lambda: srresnet.activation(channels, prelu))
        self.conv_output = conv(channels, 3, 9, bias=not has_norm)

    def advance(self, *state: Tensor) -> State:
        x, shallow = state
        return self.residual(x), shallow

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow = state
        return self.to_image(self.bn_mid(self.conv_mid(x)) + shallow, margin)

    def steps(self) -> list[Step]:
        return [*map(step_of, self.upscale), self.conv_output, *([srresnet.squashed] if self.tanh else [])]


class SrresnetBase(BaseHalf, _Srresnet):
    def begin(self) -> None:
        self.conv_input = conv(3, self.parts[0], 9, bias=self.conv_mid.bias is not None)
        self.relu = srresnet.activation(self.parts[0], self.prelu)

    def start(self, image: Tensor) -> State:
        shallow = self.relu(self.conv_input(srresnet.standard(image) if self.standardised else image))
        return shallow, shallow


class SrresnetRefine(RefineHalf, _Srresnet):
    pass


DIVIDED = Network(
    "srresnet-split",
    SrresnetBase,
    SrresnetRefine,
    **channels_of_state(2, srresnet.FEATURE_CHANNELS),
    split=(12, 4),
    minimum_size=2,
    working_values=2400,
    layout=Layout("conv_input", r"residual\.", "conv_output", ("in2", "conv2"), before=("relu",)),
)
