"""SRResNet (Ledig et al., CVPR 2017), RGB in 0..1, without a residual from the upsampled input.

Two forms fit the parameter and operation counts of the mask-guided paper (batch normalisation, which becomes part of
the convolutions when a file is read, does not); ``norm``, a setting of each half, chooses between them:

* "instance", the default: instance normalisation with scale and shift, and no biases in the convolutions. This is the
  widespread PyTorch version (Base-Net of 16 blocks), whose parameter names are used here; ``upscale`` is its
  ``upscale4x``. The Refine-Net takes its statistics from each patch by itself: a pixel is refined differently in
  another patch, so the Refine-Net over all patches and over the whole feature are two functions, by construction.
* "none": no normalisation, and biases. Each output depends on its surroundings only, wherever patches are cut. A
  Base-Net may have PReLUs there (``prelu``), as in the paper of SRResNet, instead of leaky ReLUs, and end in a
  hyperbolic tangent (``tanh``), as SRGAN does, of an image that may be ``standardised`` by ImageNet's colours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...networks.layers import consume_halo, conv, stepwise_upsampler, valid_conv

FEATURE_CHANNELS = 64
SLOPE = 0.2
NORMS = ("instance", "none")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean colour and standard deviation


def _has_norm(norm: str) -> bool:
    if norm not in NORMS:
        raise InputError(f"srresnet: norm {norm!r} does not exist; choose one of {', '.join(NORMS)}")
    return norm == "instance"


def activation(channels: int, prelu: bool = False) -> nn.Module:
    return nn.PReLU(channels) if prelu else nn.LeakyReLU(SLOPE)


def squashed(x: Tensor) -> Tensor:
    """What a network that ends in a hyperbolic tangent makes of its last convolution: -1..1, moved to 0..1."""
    return (x.tanh() + 1) / 2


def standard(image: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1, by ImageNet's colours."""
    mean, deviation = (
        torch.cat([image.new_full((1, 1, 1, 1), value) for value in values], dim=1) for values in IMAGENET
    )
    return (image - mean) / deviation


def _normalisation(norm: bool, channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if norm else nn.Identity()


class ResidualBlock(nn.Module):
    """(N, C, H, W) to the same shape; nothing follows the addition."""

    def __init__(self, norm: bool, channels: int = FEATURE_CHANNELS, prelu: bool = False):
        super().__init__()
        self.relu = activation(channels, prelu)
        self.conv1 = conv(channels, channels, 3, bias=not norm)
        self.in1 = _normalisation(norm, channels)
        self.conv2 = conv(channels, channels, 3, bias=not norm)
        self.in2 = _normalisation(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.in2(self.conv2(self.relu(self.in1(self.conv1(x))))) + x


class _Half(nn.Module):
    """What both halves consist of: blocks with a long skip, upsampler, and a last convolution 9x9."""

    def __init__(self, scale: int, blocks: int, norm: bool, channels: int = FEATURE_CHANNELS, prelu: bool = False):
        super().__init__()
        self.residual = nn.Sequential(*(ResidualBlock(norm, channels, prelu) for _ in range(blocks)))
        self.conv_mid = conv(channels, channels, 3, bias=not norm)
        self.bn_mid = _normalisation(norm, channels)
        self.upscale = stepwise_upsampler(channels, scale, not norm, lambda: activation(channels, prelu))
        self.conv_output = conv(channels, 3, 9, bias=not norm)

    def trunk(self, x: Tensor) -> Tensor:
        """The blocks with their long skip: (N, C, H, W) to the same shape."""
        return self.bn_mid(self.conv_mid(self.residual(x))) + x

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        return self.conv_output(self.upscale(feature))


class BaseNet(_Half):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, C, H, W)."""

    def __init__(
        self,
        scale: int,
        blocks: int = 12,
        norm: str = "instance",
        channels: int = FEATURE_CHANNELS,
        prelu: bool = False,
        tanh: bool = False,
        standardised: bool = False,
    ):
        super().__init__(scale, blocks, _has_norm(norm), channels, prelu)
        for name, given in (("prelu", prelu), ("tanh", tanh), ("standardised", standardised)):
            if given and norm != "none":
                raise InputError(f'srresnet: {name} is for norm "none", and this one is {norm!r}')
        self.tanh, self.standardised = tanh, standardised
        self.relu = activation(channels, prelu)
        self.receptive_field = None if norm == "instance" else 2 * blocks + 8
        self.conv_input = conv(3, channels, 9, bias=norm == "none")

    def upsample(self, feature: Tensor) -> Tensor:
        image = super().upsample(feature)
        return squashed(image) if self.tanh else image

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.trunk(self.relu(self.conv_input(standard(image) if self.standardised else image)))
        return self.upsample(feature), feature


class RefineNet(_Half):
    """Feature patches with a halo of one pixel, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1.

    The 9x9 convolution sees zeros beyond the patch, as the paper's operation counts want it.
    """

    halo = 1

    def __init__(self, scale: int, blocks: int = 4, norm: str = "instance"):
        super().__init__(scale, blocks, _has_norm(norm))
        self.receptive_field = None if norm == "instance" else 2 * blocks + 6
        self.conv1 = conv(FEATURE_CHANNELS, FEATURE_CHANNELS, 3, bias=norm == "none")
        self.conv2 = valid_conv(FEATURE_CHANNELS, FEATURE_CHANNELS, bias=norm == "none")

    def forward(self, patches: Tensor) -> Tensor:
        return self.upsample(consume_halo(self.trunk(patches), self.conv1, self.conv2))
