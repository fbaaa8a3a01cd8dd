"""IMDN: information multi-distillation network (Hui et al., ACM MM 2019), RGB in 0..1.

The mask-guided paper does not divide it; the split is that of the paper's RFDN, which has as many blocks. Parameter
names are those of its authors, so that with 6 blocks the Base-Net loads the published file as it is.
"""

from __future__ import annotations

from torch import Tensor

from ...networks.distilling import IMDB, SLOPE
from ...networks.layers import Fused, PixelShuffleUpsampler, consume_halo, conv, valid_conv

FEATURE_CHANNELS = 64
DISTILLED = 16


class BaseNet(Fused):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, C, H, W)."""

    def __init__(
        self,
        scale: int,
        blocks: int = 4,
        channels: int = FEATURE_CHANNELS,
        distilled: int = DISTILLED,
        squeezed: int = FEATURE_CHANNELS // 16,
    ):
        super().__init__()
        self.fuse(channels, "IMDB", [IMDB(channels, distilled, squeezed) for _ in range(blocks)], SLOPE)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)
        self.fea_conv = conv(3, channels, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Where to cut was ours to decide: as in the paper's RFDN, at the last tensor before the upsampler.
        feature = self.trunk(self.fea_conv(image))
        return self.upsample(feature), feature


class RefineNet(Fused):
    """Feature patches with a halo of one pixel, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1.

    The attention has the statistics of each patch, as in the paper's RCAN; -A and -D are then two different functions.
    """

    halo = 1

    def __init__(self, scale: int, blocks: int = 2):
        modules = [IMDB(FEATURE_CHANNELS, DISTILLED, FEATURE_CHANNELS // 16) for _ in range(blocks)]
        super().__init__()
        self.fuse(FEATURE_CHANNELS, "IMDB", modules, SLOPE)
        self.upsampler = PixelShuffleUpsampler(FEATURE_CHANNELS, 3, scale)
        self.conv1 = conv(FEATURE_CHANNELS, FEATURE_CHANNELS, 3)
        self.conv2 = valid_conv(FEATURE_CHANNELS, FEATURE_CHANNELS)  # unpadded: takes the halo off

    def forward(self, patches: Tensor) -> Tensor:
        return self.upsampler(consume_halo(self.trunk(patches), self.conv1, self.conv2))
