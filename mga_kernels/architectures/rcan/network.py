"""RCAN: residual channel attention network (Zhang et al., ECCV 2018), RGB in 0..255.

The mask-guided paper splits the 10 groups of 20 blocks into 7 + 3. Parameter names are those of the version in BasicSR,
except ``upsampler``, which is ``upsample`` there.
The mean colour of DIV2K, on which the published weights were trained, is taken off the image and added to the result.
It is a constant, not a parameter, and both halves add it, since both return an image.

Channel attention pools over all that a call sees: the image in the Base-Net, one patch with its halo in the Refine-Net.
The paper's operation counts charge it once for each patch. The Refine-Net over all patches and over the whole feature
are therefore two functions, by construction.

The counts fix the layers of the Refine-Net but not its skip. It has that of the Base-Net, over its own groups, so that
it starts near the coarse feature and learns a correction.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...networks.layers import consume_halo, conv, mean_like, stepwise_upsampler, unshuffled_pixels, valid_conv

FEATURE_CHANNELS = 64
BLOCKS_PER_GROUP = 20
REDUCTION = 16
MEAN = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)


class ChannelAttention(nn.Module):
    """Times a gate in (0, 1) for each channel, computed from the channels' means."""

    def __init__(self, channels: int = FEATURE_CHANNELS, squeezed: int = FEATURE_CHANNELS // REDUCTION):
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv(channels, squeezed, 1),
            nn.ReLU(),
            conv(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class RCAB(nn.Module):
    """Residual channel attention block, (N, C, H, W) to the same shape."""

    def __init__(self, channels: int = FEATURE_CHANNELS, squeezed: int = FEATURE_CHANNELS // REDUCTION):
        super().__init__()
        self.rcab = nn.Sequential(
            conv(channels, channels, 3),
            nn.ReLU(),
            conv(channels, channels, 3),
            ChannelAttention(channels, squeezed),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rcab(x) + x


class ResidualGroup(nn.Module):
    """Blocks, a convolution, and a skip around both."""

    def __init__(
        self,
        blocks: int = BLOCKS_PER_GROUP,
        channels: int = FEATURE_CHANNELS,
        squeezed: int = FEATURE_CHANNELS // REDUCTION,
    ):
        super().__init__()
        self.residual_group = nn.Sequential(*(RCAB(channels, squeezed) for _ in range(blocks)))
        self.conv = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.residual_group(x)) + x


class _Half(nn.Module):
    """What both halves consist of: groups with a long skip, and the upsampler."""

    def __init__(
        self,
        scale: int,
        groups: int,
        blocks_per_group: int = BLOCKS_PER_GROUP,
        channels: int = FEATURE_CHANNELS,
        squeezed: int = FEATURE_CHANNELS // REDUCTION,
        mean: Sequence[float] = MEAN,
    ):
        super().__init__()
        self.mean = tuple(mean)
        self.body = nn.Sequential(*(ResidualGroup(blocks_per_group, channels, squeezed) for _ in range(groups)))
        self.conv_after_body = conv(channels, channels, 3)
        self.upsampler = stepwise_upsampler(channels, scale)
        self.conv_last = conv(channels, 3, 3)

    def trunk(self, x: Tensor) -> Tensor:
        """The groups with their long skip: (N, C, H, W) to the same shape."""
        return self.conv_after_body(self.body(x)) + x

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        image = self.conv_last(self.upsampler(feature))
        return image + mean_like(image, self.mean)


class BaseNet(_Half):
    """(N, 3, H, W) in 0..255 -> coarse image (N, 3, sH, sW) in 0..255 and coarse feature (N, C, H, W).

    The settings after ``blocks``, which are groups, are those of published networks that differ; ``mean`` is in the
    range of the image. ``unshuffled``: as RRDBNet has it, blocks of so many pixels a side become channels first.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 7,
        blocks_per_group: int = BLOCKS_PER_GROUP,
        channels: int = FEATURE_CHANNELS,
        squeezed: int = FEATURE_CHANNELS // REDUCTION,
        mean: Sequence[float] = MEAN,
        unshuffled: int = 1,
    ):
        super().__init__(scale * unshuffled, blocks, blocks_per_group, channels, squeezed, mean)
        self.scale, self.unshuffled = scale, unshuffled
        self.conv_first = conv(3 * unshuffled**2, channels, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        image = image - mean_like(image, self.mean)
        if self.unshuffled > 1:
            image = unshuffled_pixels(image, self.unshuffled)
        feature = self.trunk(self.conv_first(image))
        result = self.upsample(feature)
        if self.unshuffled > 1:
            result = result[..., : height * self.scale, : width * self.scale]
        return result, feature


class RefineNet(_Half):
    """Feature patches with a halo of one pixel, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..255.

    ``blocks`` are groups.
    """

    halo = 1

    def __init__(self, scale: int, blocks: int = 3, blocks_per_group: int = BLOCKS_PER_GROUP):
        super().__init__(scale, blocks, blocks_per_group)
        self.conv1 = conv(FEATURE_CHANNELS, FEATURE_CHANNELS, 3)
        self.conv2 = valid_conv(FEATURE_CHANNELS, FEATURE_CHANNELS)

    def forward(self, patches: Tensor) -> Tensor:
        return self.upsample(consume_halo(self.trunk(patches), self.conv1, self.conv2))
