"""RRDBNet: residual-in-residual dense blocks (Wang et al., ECCV workshops 2018), RGB in 0..1.

ESRGAN, BSRGAN, Real-ESRGAN and most of what people train with them are this network, at any width, depth and number
of enlargements by 2. There is no image skip, and GANs leave 0..1: nothing is clamped here. Parameter names are those of
Real-ESRGAN; it exists whole only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.layers import conv, unshuffled_pixels

CHANNELS, GROWTH = 64, 32
SLOPE = 0.2
RESIDUAL = 0.2  # by which what a block adds is multiplied
BLOCK_REACH = 15  # pixels, of the convolutions of one block


class DenseBlock(nn.Module):
    """(N, C, H, W) to the same shape: each convolution sees what all before it made.

    ``plus``: with the additions of ESRGAN+, a 1x1 convolution of the input to what the second convolution makes, and
    that to what the fourth makes.
    """

    conv1x1: nn.Conv2d

    def __init__(self, channels: int, growth: int, plus: bool):
        super().__init__()
        for number in range(1, 5):
            setattr(self, f"conv{number}", conv(channels + (number - 1) * growth, growth, 3))
        self.conv5 = conv(channels + 4 * growth, channels, 3)
        self.plus = plus
        if plus:
            self.conv1x1 = conv(channels, growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for number in range(1, 5):
            y = F.leaky_relu_(getattr(self, f"conv{number}")(torch.cat(made, dim=1)), SLOPE)
            if self.plus and number in (2, 4):
                y = y + (self.conv1x1(x) if number == 2 else made[2])
            made.append(y)
        return RESIDUAL * self.conv5(torch.cat(made, dim=1)) + x


class Block(nn.Module):
    """RRDB, (N, C, H, W) to the same shape: three dense blocks, and a skip around them."""

    def __init__(self, channels: int, growth: int, plus: bool):
        super().__init__()
        self.growth = growth
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(channels, growth, plus) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x))) + x


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> image (N, 3, sH, sW) and the feature (N, C, H, W) that it is upsampled from.

    ``unshuffled``: blocks of so many pixels a side become one with more channels before anything else, so that the
    feature is smaller than the image; sides that are no multiples are extended by reflection at the bottom and on the
    right, and the result is cut.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 23,
        channels: int = CHANNELS,
        growth: int = GROWTH,
        unshuffled: int = 1,
        plus: bool = False,
    ):
        super().__init__()
        self.scale, self.unshuffled = scale, unshuffled
        self.enlargements = (scale * unshuffled).bit_length() - 1  # by 2 each
        beyond = sum(0.5**number for number in range(1, self.enlargements + 1)) + 2 * 0.5**self.enlargements
        self.receptive_field = unshuffled * (BLOCK_REACH * blocks + 2 + math.ceil(beyond)) + unshuffled - 1
        self.tile_multiple = unshuffled
        self.working_values = _working_values(channels, growth, self.enlargements, unshuffled)
        self.conv_first = conv(3 * unshuffled**2, channels, 3)
        self.body = nn.Sequential(*(Block(channels, growth, plus) for _ in range(blocks)))
        self.conv_body = conv(channels, channels, 3)
        for number in range(1, self.enlargements + 1):
            setattr(self, f"conv_up{number}", conv(channels, channels, 3))
        self.conv_hr = conv(channels, channels, 3)
        self.conv_last = conv(channels, 3, 3)

    def upsample(self, feature: Tensor) -> Tensor:
        """Feature (N, C, H, W) -> image of the enlargements' size, (N, 3, ...)."""
        for number in range(1, self.enlargements + 1):
            layer = getattr(self, f"conv_up{number}")
            feature = F.leaky_relu_(layer(F.interpolate(feature, scale_factor=2.0, mode="nearest")), SLOPE)
        return self.conv_last(F.leaky_relu_(self.conv_hr(feature), SLOPE))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        if self.unshuffled > 1:
            image = unshuffled_pixels(image, self.unshuffled)
        shallow = self.conv_first(image)
        feature = self.conv_body(self.body(shallow)) + shallow
        result = self.upsample(feature)
        if self.unshuffled > 1:
            result = result[..., : height * self.scale, : width * self.scale]
        return result, feature


def _working_values(channels: int, growth: int, enlargements: int, unshuffled: int) -> int:
    """For each pixel of the image: in a dense block all that was made, once more side by side, beside four skips; or at
    the end the largest picture twice, beside what it was enlarged from."""
    dense = 2 * (channels + 4 * growth) + 4 * channels
    end = 2 * channels * (4**enlargements + 4 ** max(enlargements - 1, 0) + 1)
    return math.ceil(max(dense, end) / unshuffled**2)
