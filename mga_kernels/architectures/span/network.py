"""SPAN: swift parameter-free attention network (Wan et al., CVPR workshops 2024), RGB in 0..1.

Each convolution is the one that those of its training are equal to (``published``). What a block makes is multiplied by
how far a sigmoid of it is from a half, so that values grow with ``value_range``, by which the network multiplies the
image less its mean colour. There is no image skip, and the mean is not added to the result. It exists whole only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import PixelShuffleUpsampler, conv, mean_like

CHANNELS = 48
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K


class Block(nn.Module):
    """(N, C, H, W) -> what it makes, of the same shape, and what its first convolution makes, activated."""

    def __init__(self, channels: int):
        super().__init__()
        self.c1, self.c2, self.c3 = (conv(channels, channels, 3) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.silu(self.c1(x))
        last = self.c3(F.silu(self.c2(first)))
        return (last + x) * (torch.sigmoid(last) - 0.5), first


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from."""

    def __init__(
        self,
        scale: int,
        blocks: int = 6,
        channels: int = CHANNELS,
        value_range: float = 255.0,
        mean: Sequence[float] = MEAN,
    ):
        super().__init__()
        self.blocks, self.value_range, self.mean = blocks, value_range, tuple(mean)
        self.receptive_field = 3 * blocks + 3
        self.working_values = 10 * channels + 3 * scale**2
        self.conv_1 = conv(3, channels, 3)
        self.block_1 = Block(channels)
        for number in range(2, blocks + 1):
            setattr(self, f"block_{number}", Block(channels))
        self.conv_2 = conv(channels, channels, 3)
        self.conv_cat = conv(4 * channels, channels, 1)
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image (N, 3, sH, sW)."""
        return self.upsampler(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = x = self.conv_1((image - mean_like(image, self.mean)) * self.value_range)
        x, first = self.block_1(x)
        early = x
        for number in range(2, self.blocks + 1):
            x, first = getattr(self, f"block_{number}")(x)
        feature = self.conv_cat(torch.cat([shallow, self.conv_2(x), early, first], dim=1))
        return self.upsample(feature), feature
