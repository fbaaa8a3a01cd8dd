"""Layers that several networks share."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.grid import mirror_indices


def conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """Convolution with bias whose output has the size of its input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class PixelShuffleUpsampler(nn.Sequential):
    """(N, C, H, W) -> (N, out_channels, sH, sW): convolution 3x3 to s^2 times the channels, then pixel shuffle."""

    def __init__(self, channels: int, out_channels: int, scale: int):
        super().__init__(conv(channels, out_channels * scale * scale, 3), nn.PixelShuffle(scale))


def pad_by_reflection(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), extended at the bottom and on the right; ``x`` itself where it fits."""
    for axis, padded in ((2, height), (3, width)):
        if x.shape[axis] != padded:
            x = x.index_select(axis, mirror_indices(x.shape[axis], padded, x.device))
    return x
