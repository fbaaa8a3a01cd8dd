"""RFDN: residual feature distillation network (Liu et al., ECCV workshops 2020; AIM 2020 efficient SR).

Keys and shapes of the Base-Net are those of the published AIM 2020 file, so that file loads as it is. The network
works on RGB in 0..255 and has no mean shift and no residual from the input image.

The two halves follow the split of the mask-guided paper (4 + 2 blocks). Their ESA blocks differ on purpose: the
Base-Net keeps the max-pool of the original network, the Refine-Net drops it because a 6x6 patch is too small for a
7x7 pool. Parameters have the same names and shapes with and without the pool, so nothing but the ``pool`` setting
tells the two functions apart; it is therefore a setting of each half and is stored with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import Fused, PixelShuffleUpsampler, Place, consume_halo, conv, resampling, valid_conv

FEATURE_CHANNELS = 50
# LR pixels by which one block looks to each side: 4 by its convolutions and the rest by its attention, with and without
# pool. What several blocks see of the border of their common reach is next to nothing, so that with a pool each further
# one counts for ``FURTHER`` only: at x4 beyond that the published network (4 blocks) changes by less than 0.001 of 255.
REACH = {True: 43, False: 14}
FURTHER = {True: 11, False: 14}
SLOPE = 0.05


class ESA(nn.Module):
    """Enhanced spatial attention: (N, C, H, W) times a gate in (0, 1) computed at a third of the resolution.

    ``pool=True`` needs H, W >= 15 (the 7x7 pool acts on the stride-2 map); ``pool=False`` needs H, W >= 3.
    """

    def __init__(self, channels: int, pool: bool):
        super().__init__()
        inner = channels // 4
        self.pool = pool
        self.conv1 = conv(channels, inner, 1)
        self.conv_f = conv(inner, inner, 1)
        self.conv_max = conv(inner, inner, 3)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2, padding=0)
        self.conv3 = conv(inner, inner, 3)
        self.conv3_ = conv(inner, inner, 3)
        self.conv4 = conv(inner, channels, 1)

    def forward(self, x: Tensor, place: Place | None = None) -> Tensor:
        reduced = self.conv1(x)
        wide = self.conv2(reduced)
        if self.pool:
            wide = F.max_pool2d(wide, kernel_size=7, stride=3)
        wide = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(wide)))))
        if place is None:
            wide = F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)
        else:
            rows, columns = self.enlargement(wide.shape[-2:], x.shape[-2:], place)
            wide = (rows.to(x.device) @ wide.float() @ columns.to(x.device)).to(x.dtype)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(reduced)))

    def enlargement(self, small: Sequence[int], size: Sequence[int], place: Place) -> tuple[Tensor, Tensor]:
        """Matrices (H, h) and (w, W) that enlarge the map h x w of a tile H x W as it would be enlarged in the image.

        The map of an image has no fixed ratio to the image, since neither the strided convolution nor the pool is
        padded; a tile enlarged by its own ratio would be off by several LR pixels.
        """
        step = 6 if self.pool else 2
        axes = zip(size, small, (place.top, place.left), (place.height, place.width), strict=True)
        rows, columns = (
            resampling(length, first, whole, known, first // step, self.small_side(whole))
            for length, known, first, whole in axes
        )
        return rows, columns.T

    def small_side(self, side: int) -> int:
        """Side of the map of an image with this side."""
        strided = (side - 3) // 2 + 1
        return (strided - 7) // 3 + 1 if self.pool else strided


class RFDB(nn.Module):
    """Residual feature distillation block, (N, C, H, W) -> (N, C, H, W). There is no skip around the block."""

    def __init__(self, channels: int, pool: bool):
        super().__init__()
        distilled = channels // 2
        for i in (1, 2, 3):
            setattr(self, f"c{i}_d", conv(channels, distilled, 1))
            setattr(self, f"c{i}_r", conv(channels, channels, 3))
        self.c4 = conv(channels, distilled, 3)
        self.c5 = conv(4 * distilled, channels, 1)
        self.esa = ESA(channels, pool)

    def forward(self, x: Tensor, place: Place | None = None) -> Tensor:
        kept = []
        for i in (1, 2, 3):
            kept.append(F.leaky_relu(getattr(self, f"c{i}_d")(x), SLOPE))
            x = F.leaky_relu(getattr(self, f"c{i}_r")(x) + x, SLOPE)
        kept.append(F.leaky_relu(self.c4(x), SLOPE))
        return self.esa(self.c5(torch.cat(kept, dim=1)), place)


class BaseNet(Fused):
    """(N, 3, H, W) in 0..255 -> coarse image (N, 3, sH, sW) in 0..255 and coarse feature (N, C, H, W).

    ``place``: where the image is a tile of a larger one.
    """

    takes_place = True

    def __init__(self, scale: int, blocks: int = 4, channels: int = FEATURE_CHANNELS, pool: bool = True):
        super().__init__()
        self.receptive_field, self.tile_multiple = REACH[pool] + FURTHER[pool] * (blocks - 1) + 3, 6 if pool else 2
        self.fea_conv = conv(3, channels, 3)
        self.fuse(channels, "B", [RFDB(channels, pool) for _ in range(blocks)], SLOPE)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def forward(self, image: Tensor, place: Place | None = None) -> tuple[Tensor, Tensor]:
        feature = self.trunk(self.fea_conv(image), place)
        return self.upsample(feature), feature


class RefineNet(Fused):
    """Feature patches with a halo of one pixel, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..255.

    The last 3x3 convolution is unpadded and consumes the halo, so a whole feature padded by one pixel of zeros is
    refined by the same call (variant -D).
    """

    halo = 1

    def __init__(self, scale: int, blocks: int = 2, channels: int = FEATURE_CHANNELS, pool: bool = False):
        super().__init__()
        self.fuse(channels, "B", [RFDB(channels, pool) for _ in range(blocks)], SLOPE)
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = valid_conv(channels, channels)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def tail(self, x: Tensor) -> Tensor:
        """Fusion of the halo and upsampling: (N, C, p+2, p+2) -> (N, 3, sp, sp)."""
        return self.upsampler(consume_halo(x, self.conv1, self.conv2))

    def forward(self, patches: Tensor) -> Tensor:
        return self.tail(self.trunk(patches))
