"""The simplified IMDN, which won AIM 2019's challenge of constrained SR and is what KAIR trains; RGB in 0..1.

Its blocks have no attention and are not fused: each looks at the pixels around it alone, and the last one's output is
what is upsampled, after a convolution and with a long skip. It exists whole only; block names are those of IMDN.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...networks.distilling import IMDB
from ...networks.layers import PixelShuffleUpsampler, conv

FEATURE_CHANNELS = 64
DISTILLED = 16


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from."""

    def __init__(self, scale: int, blocks: int = 8, channels: int = FEATURE_CHANNELS, distilled: int = DISTILLED):
        super().__init__()
        self.receptive_field = 4 * blocks + 3
        self.conv_first = conv(3, channels, 3)
        self.body = nn.Sequential(*(IMDB(channels, distilled) for _ in range(blocks)))
        self.conv_after_body = conv(channels, channels, 3)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        return self.upsampler(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.conv_first(image)
        feature = self.conv_after_body(self.body(shallow)) + shallow
        return self.upsample(feature), feature
