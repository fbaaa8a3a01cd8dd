"""Published networks cut in two, so that a file of one becomes mask-guided without loss (``mga convert``).

The Base-Net is the network with the first of its blocks and an upsampler of its own: a copy of the network's, or a
light one, a convolution and a pixel shuffle, where the network's works on enlarged features and costs as much as all
its blocks (PAN, MSRResNet, SRResNet, RCAN). The Refine-Net is what is left: the other blocks and the upsampler. In the
halves of the paper the coarse feature is what the Base-Net upsamples, and the Refine-Net adds to it. Here it is the
state of the network at the cut, all that the other blocks and the skips around them need, so that Base-Net and
Refine-Net over the whole image (-D) are the published network exactly. With blocks added behind the last one it is what
the network is extended by.

A state consists of parts, side by side in the feature: the trunk's own, from which the mask is made; what a long skip
holds; what the fusion of all blocks has summed so far; and, for networks that add to the enlarged image, the image.

A patch has a halo of one LR pixel, which the convolutions of the upsampler use up. Networks whose layers look at the
whole of their input (SRResNet, RCAN, IMDN) see the patch there, and RFDN's attention does without its max-pool, for
which a patch is too small: for these networks -A and -D are different functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PixelShuffleUpsampler, conv
from .margins import Enlarge, Step, cropped, upsampled
from .registry import Channels

IMAGE = 4  # channels of the image in a state
GREY = 0.5  # taken off the image of a state, so that bfloat16 holds it twice as exactly

State = tuple[Tensor, ...]
SETTING = "channels"  # of the halves, by which their width is set unless a network says otherwise


@dataclass(frozen=True)
class Layout:
    """Names in a network's state dict. ``blocks``: pattern before and of a block's number, counted from ``first``.

    ``head`` is the first convolution, ``ends`` what comes last and returns colours. ``silent``: the layers of a block
    that are set to zero where it is to change nothing. ``fusion``: the convolution of all blocks' outputs. ``before``:
    what else comes before the blocks, of the Base-Net alone.
    """

    head: str
    blocks: str
    ends: str
    silent: tuple[str, ...] = ()
    first: int = 0
    fusion: str = ""
    before: tuple[str, ...] = ()


class StateChannels(TypedDict):
    """Two fields of a ``registry.Network``."""

    feature_channels: Channels
    mask_channels: Channels


def channels_of_state(parts: int, default: int, image: bool = False, setting: str = SETTING) -> StateChannels:
    """Fields of a ``Network``: its state has ``parts`` of as many channels as ``setting`` says, and maybe the image."""
    return {
        "feature_channels": lambda settings: parts * settings.get(setting, default) + IMAGE * image,
        "mask_channels": lambda settings: settings.get(setting, default),
    }


def image_part(image: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1 -> (N, 4, H, W): with ones, which tell the image from the zeros around it."""
    return torch.cat([image - GREY, torch.ones_like(image[:, :1])], dim=1)


def enlarged(part: Tensor, scale: int, margin: int) -> Tensor:
    """The image of ``image_part``, bilinearly enlarged, without its margin of LR pixels. Zeros around it count for
    nothing, so that its border is continued as it is where there is no margin."""
    part = cropped(F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False), margin * scale)
    return part[:, :3] / part[:, 3:] + GREY


class Half(nn.Module, ABC):
    """Blocks of a network, and the way from its state to an image. ``parts``: channels of the parts of the state.

    ``receptive_field`` (``registry.Network``), where there is one, is that of the blocks and the network's upsampler,
    less the pixel of which a Refine-Net has a halo; a Base-Net adds it, which a light upsampler does not need.

    ``light``: a convolution before a pixel shuffle, in the Base-Net's place of the network's own upsampler.
    """

    parts: tuple[int, ...]
    scale: int
    light: nn.Conv2d | None

    def lighten(self, light: bool, scale: int, channels: int) -> bool:
        """Whether the upsampler is the light one. Makes that, and in a Base-Net what comes before the blocks."""
        self.scale, self.light = scale, conv(channels, 3 * scale * scale, 3) if light else None
        self.begin()
        return light

    def begin(self) -> None:
        """Make what a Base-Net has beyond its blocks and upsampler, when ``parts`` and ``light`` are known."""

    @abstractmethod
    def advance(self, *state: Tensor) -> State:
        """Run the blocks."""

    @abstractmethod
    def finish(self, margin: int, *state: Tensor) -> Tensor:
        """(N, 3, sH, sW), less a margin of LR pixels to each side."""

    @abstractmethod
    def steps(self) -> list[Step]:
        """Those of the network's own upsampler."""

    def to_image(self, feature: Tensor, margin: int) -> Tensor:
        """What is upsampled, through the upsampler that this half has."""
        if self.light is None:
            return upsampled(feature, self.steps(), margin)
        return F.pixel_shuffle(self.light(feature), self.scale)  # of a Base-Net, where there is no margin


class BaseHalf(Half):
    """Image (N, 3, H, W) -> coarse image (N, 3, sH, sW) and state (N, C, H, W)."""

    @abstractmethod
    def start(self, image: Tensor) -> State:
        """What the blocks begin with."""

    def upsample(self, feature: Tensor) -> Tensor:
        return self.finish(0, *feature.split(self.parts, dim=1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = torch.cat(self.advance(*self.start(image)), dim=1)
        return self.upsample(feature), feature


class RefineHalf(Half):
    """Patches of the state with a halo, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp)."""

    halo = 1

    def forward(self, patches: Tensor) -> Tensor:
        return self.finish(self.halo, *self.advance(*patches.split(self.parts, dim=1)))

    def whole(self, feature: Tensor) -> Tensor:
        """The state of a whole image (N, C, H, W) -> (N, 3, sH, sW)."""
        return self.finish(0, *self.advance(*feature.split(self.parts, dim=1)))


class Distilling(Half):
    """All blocks are fused by one convolution 1x1, whose sum so far is a part of the state, as in RFDN and IMDN."""

    fea_conv: nn.Conv2d  # of the Base-Net

    def begin(self) -> None:
        if isinstance(self, BaseHalf):
            self.fea_conv = conv(3, self.parts[0], 3)

    def build(self, scale: int, channels: int, name: str, blocks: Sequence[nn.Module], slope: float) -> None:
        self.parts, self.slope, self.names = (channels,) * 3, slope, [f"{name}{i + 1}" for i in range(len(blocks))]
        for block_name, block in zip(self.names, blocks, strict=True):
            setattr(self, block_name, block)
        self.c = nn.Sequential(conv(len(blocks) * channels, channels, 1))
        self.LR_conv = conv(channels, channels, 3)
        self.lighten(False, scale, channels)  # it is light as it is
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def advance(self, *state: Tensor) -> State:
        x, shallow, fused = state
        outputs = []
        for name in self.names:
            x = getattr(self, name)(x)
            outputs.append(x)
        return x, shallow, fused + self.c(torch.cat(outputs, dim=1))

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        _, shallow, fused = state
        return self.to_image(self.LR_conv(F.leaky_relu(fused, self.slope)) + shallow, margin)

    def steps(self) -> list[Step]:
        return [*map(step_of, self.upsampler)]

    def start(self, image: Tensor) -> State:
        shallow = self.fea_conv(image)
        return shallow, shallow, torch.zeros_like(shallow)


def leaky(slope: float) -> Callable[[Tensor], Tensor]:
    """A leaky ReLU as a step of an upsampler."""
    return lambda x: F.leaky_relu(x, slope)


def step_of(module: nn.Module) -> Step:
    """A module as a step of an upsampler."""
    return Enlarge(module.upscale_factor) if isinstance(module, nn.PixelShuffle) else module
