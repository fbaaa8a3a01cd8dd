"""EDSR: enhanced deep residual network (Lim et al., CVPR workshops 2017), RGB in 0..255 less a mean colour.

There is no image skip. It exists whole only; parameter names are those of BasicSR, except ``upsampler``, which is
``upsample`` there.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...networks.layers import ResidualBlock, conv, mean_like, stepwise_upsampler, upsampling_steps

CHANNELS = 64
MEAN = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)  # of DIV2K
WIDE, WIDE_RESIDUAL = 256, 0.1  # channels of the large network, and by what it multiplies what its blocks make


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..255 -> image (N, 3, sH, sW) in 0..255 and the feature (N, C, H, W) it is upsampled from.

    ``residual``: what blocks make is multiplied by it. ``mean`` is in the range of the image.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 16,
        channels: int = CHANNELS,
        residual: float = 1.0,
        mean: Sequence[float] = MEAN,
    ):
        super().__init__()
        self.mean = tuple(mean)
        self.receptive_field = 2 * blocks + 4
        self.working_values = 2 * channels * 4 ** len(upsampling_steps(scale)) + 4 * channels
        self.conv_first = conv(3, channels, 3)
        self.body = nn.Sequential(*(ResidualBlock(channels, residual) for _ in range(blocks)))
        self.conv_after_body = conv(channels, channels, 3)
        self.upsampler = stepwise_upsampler(channels, scale)
        self.conv_last = conv(channels, 3, 3)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        image = self.conv_last(self.upsampler(feature))
        return image + mean_like(image, self.mean)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.conv_first(image - mean_like(image, self.mean))
        feature = self.conv_after_body(self.body(shallow)) + shallow
        return self.upsample(feature), feature
