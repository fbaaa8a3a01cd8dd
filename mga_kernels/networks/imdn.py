"""IMDN: information multi-distillation network (Hui et al., ACM MM 2019), RGB in 0..1.

It exists whole only: the mask-guided paper does not divide it; ``examples/imdn.py`` shows how that is done. Parameter
names are those of its authors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PixelShuffleUpsampler, conv

FEATURE_CHANNELS = 64
DISTILLED = 16
SLOPE = 0.05


class ContrastAttention(nn.Module):
    """Times a gate in (0, 1) for each channel, computed from its standard deviation plus its mean over the image."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv_du = nn.Sequential(conv(channels, squeezed, 1), nn.ReLU(), conv(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * self.conv_du(deviation + mean)


class IMDB(nn.Module):
    """Information multi-distillation block, (N, C, H, W) to the same shape: each step keeps ``distilled`` channels."""

    def __init__(self, channels: int, distilled: int, squeezed: int):
        super().__init__()
        self.parts = (distilled, channels - distilled)
        self.c1 = conv(channels, channels, 3)
        self.c2 = conv(channels - distilled, channels, 3)
        self.c3 = conv(channels - distilled, channels, 3)
        self.c4 = conv(channels - distilled, distilled, 3)
        self.cca = ContrastAttention(4 * distilled, squeezed)
        self.c5 = conv(4 * distilled, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for step in (self.c1, self.c2, self.c3):
            distilled, rest = F.leaky_relu(step(rest), SLOPE).split(self.parts, dim=1)
            kept.append(distilled)
        return self.c5(self.cca(torch.cat((*kept, self.c4(rest)), dim=1))) + x


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from.

    It looks at the whole image, for its contrast.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 6,
        channels: int = FEATURE_CHANNELS,
        distilled: int = DISTILLED,
        squeezed: int = FEATURE_CHANNELS // 16,
    ):
        super().__init__()
        self.blocks = blocks
        self.fea_conv = conv(3, channels, 3)
        for i in range(1, blocks + 1):
            setattr(self, f"IMDB{i}", IMDB(channels, distilled, squeezed))
        self.c = nn.Sequential(conv(blocks * channels, channels, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = conv(channels, channels, 3)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        return self.upsampler(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = x = self.fea_conv(image)
        outputs = []
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"IMDB{i}")(x)
            outputs.append(x)
        feature = self.LR_conv(self.c(torch.cat(outputs, dim=1))) + shallow
        return self.upsample(feature), feature
