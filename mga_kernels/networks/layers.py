"""Layers that several networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.grid import mirror_indices


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """Convolution whose output has the size of its input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def valid_conv(in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    """Convolution 3x3 without padding: its output is one pixel smaller on each side."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=0, bias=bias)


def consume_halo(x: Tensor, conv1: nn.Module, conv2: nn.Module) -> Tensor:
    """What closes a refined patch, (N, C, p+2, p+2) -> (N, C, p, p): ``conv2`` is unpadded and eats the halo."""
    return conv2(F.leaky_relu(conv1(x), 0.1))


class PixelShuffleUpsampler(nn.Sequential):
    """(N, C, H, W) -> (N, out_channels, sH, sW): convolution 3x3 to s^2 times the channels, then pixel shuffle."""

    def __init__(self, channels: int, out_channels: int, scale: int):
        super().__init__(conv(channels, out_channels * scale * scale, 3), nn.PixelShuffle(scale))


def upsampling_steps(scale: int) -> tuple[int, ...]:
    """Factors of a network that upsamples in steps: 4 is two steps of 2."""
    return (2, 2) if scale == 4 else (scale,)


def stepwise_upsampler(channels: int, scale: int, bias: bool = True, slope: float | None = None) -> nn.Sequential:
    """(N, C, H, W) -> (N, C, sH, sW) by pixel shuffles, each followed by a leaky ReLU where a ``slope`` is given."""
    layers: list[nn.Module] = []
    for step in upsampling_steps(scale):
        layers += [conv(channels, channels * step * step, 3, bias), nn.PixelShuffle(step)]
        layers += [nn.LeakyReLU(slope)] if slope is not None else []
    return nn.Sequential(*layers)


def pad_by_reflection(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), extended at the bottom and on the right; ``x`` itself where it fits."""
    for axis, padded in ((2, height), (3, width)):
        if x.shape[axis] != padded:
            x = x.index_select(axis, mirror_indices(x.shape[axis], padded, x.device))
    return x
