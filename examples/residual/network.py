"""A residual network as two halves whose cut loses nothing: RGB in 0..255, less a mean colour.

The state at the cut is what the blocks have made so far and, for the long skip, what the first convolution made. The
halves get the rest from ``mga_kernels.networks.divided``: patches and their halo, -D, and the light upsampler.
"""

from __future__ import annotations

from torch import Tensor, nn

from mga_kernels.networks.divided import BaseHalf, Half, RefineHalf, State, step_of
from mga_kernels.networks.layers import ResidualBlock, conv, mean_like, stepwise_upsampler
from mga_kernels.networks.margins import Step

CHANNELS = 64
MEAN = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)


class ResidualHalf(Half):
    conv_first: nn.Conv2d  # of the Base-Net

    def __init__(self, scale: int, blocks: int, channels: int = CHANNELS, light: bool = False):
        super().__init__()
        self.parts, self.receptive_field = (channels, channels), 2 * blocks + 3
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv_after_body = conv(channels, channels, 3)
        if self.lighten(light, scale, channels):
            return
        self.upsampler = stepwise_upsampler(channels, scale)
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, shallow = state
        return self.body(x), shallow

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow = state
        image = self.to_image(self.conv_after_body(x) + shallow, margin)
        return image + mean_like(image, MEAN)

    def steps(self) -> list[Step]:
        return [*map(step_of, self.upsampler), self.conv_last]


class BaseNet(BaseHalf, ResidualHalf):
    """(N, 3, H, W) in 0..255 -> coarse image (N, 3, sH, sW) in 0..255 and state (N, 2C, H, W)."""

    def __init__(self, scale: int, blocks: int = 12, channels: int = CHANNELS, light: bool = False):
        super().__init__(scale, blocks, channels, light)

    def begin(self) -> None:
        self.receptive_field += self.light is None
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        shallow = self.conv_first(image - mean_like(image, MEAN))
        return shallow, shallow


class RefineNet(RefineHalf, ResidualHalf):
    """Patches of the state with a halo of one pixel, (N, 2C, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..255."""

    def __init__(self, scale: int, blocks: int = 4, channels: int = CHANNELS):
        super().__init__(scale, blocks, channels)
