"""PAN: pixel attention network (Zhao et al., ECCV workshops 2020), RGB in 0..1.

Keys and shapes of the Base-Net are those of the published code, so that its file of 16 blocks loads as it is with
``blocks=16``. The mask-guided paper splits those blocks into 12 + 4.

The paper does not draw the halves of PAN; its parameter and operation counts leave little freedom. They leave no room
for the two convolutions that consume the halo in the other networks: here convolutions of the upsampler are unpadded
instead (``UNPADDED``), and x3, which has too few of them, gets one more. Two things do not show in the counts:

* The Refine-Net has the long skip of the Base-Net, over its own trunk, so that it starts near the coarse feature and
  learns a correction.
* The Refine-Net adds no upsampled input, because it does not see the image. It does not need to: the coarse feature
  contains the output of ``conv_first`` unchanged, by the long skip, and so the absolute level of every pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import conv, upsampling_steps, valid_conv

FEATURE_CHANNELS = 40
UPSAMPLING_CHANNELS = 24
SLOPE = 0.2
# A halo of one LR pixel is s pixels after upsampling. x2: each layer takes one of them. x4: the first layer takes two,
# as it stands before the second step, the others one each.
UNPADDED = {
    2: {"upconv1", "conv_last"},
    3: {"upconv1", "HRconv_extra", "conv_last"},
    4: {"upconv1", "HRconv2", "conv_last"},
}


class PAConv(nn.Module):
    """Convolution 3x3 gated pixel by pixel, then another one; (N, C, H, W) to the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.k2 = conv(channels, channels, 1)
        self.k3 = conv(channels, channels, 3, bias=False)
        self.k4 = conv(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.k4(self.k3(x) * torch.sigmoid(self.k2(x)))


class SCPA(nn.Module):
    """Self-calibrated block with pixel attention: half of the channels passes ``k1``, the other ``PAConv``."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1_a = conv(channels, half, 1, bias=False)
        self.conv1_b = conv(channels, half, 1, bias=False)
        self.k1 = nn.Sequential(conv(half, half, 3, bias=False))
        self.PAConv = PAConv(half)
        self.conv3 = conv(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.k1(F.leaky_relu(self.conv1_a(x), SLOPE)), SLOPE)
        b = F.leaky_relu(self.PAConv(F.leaky_relu(self.conv1_b(x), SLOPE)), SLOPE)
        return self.conv3(torch.cat((a, b), dim=1)) + x


class PixelAttention(nn.Module):
    """Times a gate in (0, 1) for each pixel and channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class _Half(nn.Module):
    """What both halves consist of: blocks with a long skip, and an upsampler whose ``unpadded`` layers crop."""

    conv_last: nn.Conv2d
    HRconv_extra: nn.Conv2d  # in the Refine-Net at x3

    def __init__(
        self,
        scale: int,
        blocks: int,
        unpadded: set[str],
        features: int = FEATURE_CHANNELS,
        channels: int = UPSAMPLING_CHANNELS,
    ):
        super().__init__()
        self.steps = upsampling_steps(scale)
        self.SCPA_trunk = nn.Sequential(*(SCPA(features) for _ in range(blocks)))
        self.trunk_conv = conv(features, features, 3)
        layers = {"upconv1": (features, channels), "HRconv1": (channels, channels)}
        if len(self.steps) == 2:
            layers |= {"upconv2": (channels, channels), "HRconv2": (channels, channels)}
        if "HRconv_extra" in unpadded:
            layers["HRconv_extra"] = (channels, channels)
        layers["conv_last"] = (channels, 3)
        for name, (inputs, outputs) in layers.items():
            setattr(self, name, valid_conv(inputs, outputs) if name in unpadded else conv(inputs, outputs, 3))
        for i in range(1, len(self.steps) + 1):
            setattr(self, f"att{i}", PixelAttention(channels))

    def trunk(self, x: Tensor) -> Tensor:
        """The blocks with their long skip: (N, C, H, W) to the same shape."""
        return self.trunk_conv(self.SCPA_trunk(x)) + x

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> (N, 3, sH, sW), less what the unpadded layers take."""
        x = feature
        for i, step in enumerate(self.steps, start=1):
            x = F.interpolate(x, scale_factor=step, mode="nearest")
            x = getattr(self, f"upconv{i}")(x)  # by itself, so that the interpolated tensor is given back at once
            x = F.leaky_relu(getattr(self, f"att{i}")(x), SLOPE)
            x = F.leaky_relu(getattr(self, f"HRconv{i}")(x), SLOPE)
        if hasattr(self, "HRconv_extra"):
            x = F.leaky_relu(self.HRconv_extra(x), SLOPE)
        return self.conv_last(x)


class BaseNet(_Half):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, C, H, W).

    ``upsample`` gives what is added to the bilinearly upsampled input. ``features`` and ``channels`` (after upsampling)
    are those of published networks that differ.
    """

    def __init__(
        self, scale: int, blocks: int = 12, features: int = FEATURE_CHANNELS, channels: int = UPSAMPLING_CHANNELS
    ):
        super().__init__(scale, blocks, set(), features, channels)
        self.receptive_field = 2 * blocks + 4
        self.scale = scale
        self.conv_first = conv(3, features, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.trunk(self.conv_first(image))
        enlarged = F.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.upsample(feature) + enlarged, feature


class RefineNet(_Half):
    """Feature patches with a halo of one pixel, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1."""

    halo = 1

    def __init__(self, scale: int, blocks: int = 4):
        super().__init__(scale, blocks, UNPADDED[scale])
        self.receptive_field = 2 * blocks + 3

    def forward(self, patches: Tensor) -> Tensor:
        return self.upsample(self.trunk(patches))
