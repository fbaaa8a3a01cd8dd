"""SRVGGNetCompact: convolutions and PReLUs in turn (Wang et al., Real-ESRGAN, 2021), RGB in 0..1.

What they make is added to the image enlarged by repeating its pixels. It exists whole only; parameter names are those
of its authors.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import conv

CHANNELS = 64


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from.

    ``blocks``: convolutions between the first and the last. ``enlarged``: how many times the network itself enlarges
    where that is more than ``scale``; the result is shrunk by bicubic interpolation, as animevideov3 is for x2 and x3.
    """

    def __init__(self, scale: int, blocks: int = 16, channels: int = CHANNELS, enlarged: int | None = None):
        super().__init__()
        self.scale, self.enlarged = scale, enlarged or scale
        self.receptive_field = blocks + 2 + (1 if self.enlarged != scale else 0)
        self.working_values = 2 * channels + 6 + 9 * self.enlarged**2
        layers: list[nn.Module] = []
        for inputs in (3, *[channels] * blocks):
            layers += [conv(inputs, channels, 3), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, conv(channels, 3 * self.enlarged**2, 3))

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> what is added to the enlarged image."""
        return F.pixel_shuffle(self.body[-1](feature), self.enlarged)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.body[:-1](image)
        result = self.upsample(feature) + F.interpolate(image, scale_factor=float(self.enlarged), mode="nearest")
        if self.enlarged != self.scale:
            result = F.interpolate(result, scale_factor=self.scale / self.enlarged, mode="bicubic", align_corners=False)
        return result, feature
