"""MSRResNet: SRResNet without normalisation, as BasicSR and KAIR train it (Wang et al., 2018), RGB in 0..1.

Its residual is the bilinearly upsampled input. It exists whole only: the mask-guided paper does not divide it.
Parameter names are those of its first publication.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import ResidualBlock, conv, upsampling_steps

FEATURE_CHANNELS = 64
SLOPE = 0.1


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from."""

    def __init__(self, scale: int, blocks: int = 16, channels: int = FEATURE_CHANNELS):
        super().__init__()
        self.receptive_field = 2 * blocks + 3
        self.scale, self.steps = scale, upsampling_steps(scale)
        self.conv_first = conv(3, channels, 3)
        self.recon_trunk = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        for i, step in enumerate(self.steps, start=1):
            setattr(self, f"upconv{i}", conv(channels, channels * step * step, 3))
        self.HRconv = conv(channels, channels, 3)
        self.conv_last = conv(channels, 3, 3)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> what is added to the upsampled input (N, 3, sH, sW)."""
        for i, step in enumerate(self.steps, start=1):
            feature = F.leaky_relu(F.pixel_shuffle(getattr(self, f"upconv{i}")(feature), step), SLOPE)
        return self.conv_last(F.leaky_relu(self.HRconv(feature), SLOPE))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.recon_trunk(F.leaky_relu(self.conv_first(image), SLOPE))
        enlarged = F.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.upsample(feature) + enlarged, feature
