"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.grid import mirror_indices

Size = int  # a SymInt while a graph is traced
Kind = TypeVar("Kind", bound=nn.Module)


@dataclass(frozen=True)
class Place:
    """Where a tile stands in an image of ``height`` x ``width``: its first row and column, in LR pixels."""

    top: int
    left: int
    height: int
    width: int


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """Convolution whose output has the size of its input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def valid_conv(in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    """Convolution 3x3 without padding: its output is one pixel smaller on each side."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=0, bias=bias)


def each(kind: type[Kind], modules: Iterable[nn.Module]) -> list[Kind]:
    """Modules of a sequence, all of which are of this kind."""
    found = [module for module in modules if isinstance(module, kind)]
    assert len(found) == sum(1 for _ in modules)
    return found


def consume_halo(x: Tensor, conv1: nn.Module, conv2: nn.Module) -> Tensor:
    """What closes a refined patch, (N, C, p+2, p+2) -> (N, C, p, p): ``conv2`` is unpadded and eats the halo."""
    return conv2(F.leaky_relu(conv1(x), 0.1))


def mean_like(image: Tensor, mean: Sequence[float]) -> Tensor:
    """A mean colour (1, 3, 1, 1) of the image's dtype, on its device.

    Filled in there: a tensor kept by the module would be lost where a model is built on the meta device and its
    weights assigned, and a list copied from the host cannot be captured in a CUDA graph.
    """
    return torch.cat([image.new_full((1, 1, 1, 1), value) for value in mean], dim=1)


class ResidualBlock(nn.Module):
    """(N, C, H, W) to the same shape; ``residual`` times what the layers make is added, and nothing follows."""

    def __init__(self, channels: int, residual: float = 1.0):
        super().__init__()
        self.residual = residual
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv2(F.relu(self.conv1(x)))
        return (made if self.residual == 1 else made * self.residual) + x


class PixelShuffleUpsampler(nn.Sequential):
    """(N, C, H, W) -> (N, out_channels, sH, sW): convolution 3x3 to s^2 times the channels, then pixel shuffle."""

    def __init__(self, channels: int, out_channels: int, scale: int):
        super().__init__(conv(channels, out_channels * scale * scale, 3), nn.PixelShuffle(scale))


class Fused(nn.Module):
    """Blocks, a 1x1 convolution of all that they make with a long skip, and an ``upsampler``, as in IMDN and RFDN."""

    upsampler: PixelShuffleUpsampler

    def fuse(self, channels: int, name: str, blocks: Sequence[nn.Module], slope: float) -> None:
        """Make the layers of the trunk, whose blocks are called ``name`` and their number, counted from 1.

        Not by the constructor: what else a network has comes before or behind them, and a seed's weights and the state
        of an optimizer go by the order.
        """
        self.blocks, self.name = len(blocks), name
        for number, block in enumerate(blocks, start=1):
            setattr(self, f"{name}{number}", block)
        self.c = nn.Sequential(conv(len(blocks) * channels, channels, 1), nn.LeakyReLU(slope))
        self.LR_conv = conv(channels, channels, 3)

    def trunk(self, shallow: Tensor, *of_block: object) -> Tensor:
        """The blocks, each also given ``of_block``, with their long skip: (N, C, H, W) to the same shape."""
        x, outputs = shallow, []
        for number in range(1, self.blocks + 1):
            x = getattr(self, f"{self.name}{number}")(x, *of_block)
            outputs.append(x)
        return self.LR_conv(self.c(torch.cat(outputs, dim=1))) + shallow

    def upsample(self, feature: Tensor) -> Tensor:
        """Coarse feature (N, C, H, W) -> coarse image (N, 3, sH, sW)."""
        return self.upsampler(feature)


def upsampling_steps(scale: int) -> tuple[int, ...]:
    """Factors of a network that upsamples in steps: 4 is two steps of 2, 8 is three, 1 is none."""
    steps = scale.bit_length() - 1
    return (2,) * steps if scale == 1 << steps else (scale,)


def stepwise_upsampler(
    channels: int, scale: int, bias: bool = True, activation: Callable[[], nn.Module] | None = None
) -> nn.Sequential:
    """(N, C, H, W) -> (N, C, sH, sW) by pixel shuffles, each followed by an ``activation`` where one is given."""
    layers: list[nn.Module] = []
    for step in upsampling_steps(scale):
        layers += [conv(channels, channels * step * step, 3, bias), nn.PixelShuffle(step)]
        layers += [] if activation is None else [activation()]
    return nn.Sequential(*layers)


def resampling(count: int, first: int, whole: int, small: int, small_first: int, small_whole: int) -> Tensor:
    """Weights (count, small) float32 of a part of a bilinear enlargement (half pixels, as ``F.interpolate``).

    An axis of ``small_whole`` is enlarged to ``whole``. Of the result the part is ``count`` from ``first`` on, of what
    is enlarged only ``small`` from ``small_first`` on are known; what is needed beyond is taken from their border.
    """
    centres = torch.arange(first, first + count, dtype=torch.float64) + 0.5
    source = (centres * (small_whole / whole) - 0.5).clamp(min=0)
    lower = source.long()
    weights = torch.zeros(count, small, dtype=torch.float64)
    for index, weight in ((lower, 1 - source.frac()), ((lower + 1).clamp(max=small_whole - 1), source.frac())):
        weights.scatter_add_(1, (index - small_first).clamp(0, small - 1)[:, None], weight[:, None])
    return weights.float()


def pad_by_reflection(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), extended at the bottom and on the right; ``x`` itself where it fits."""
    for axis, padded in ((2, height), (3, width)):
        if x.shape[axis] != padded:
            x = x.index_select(axis, mirror_indices(x.shape[axis], padded, x.device))
    return x


def extended(x: Tensor, height: Size, width: Size) -> Tensor:
    """``pad_by_reflection`` without a comparison of sizes, which a graph for all of them cannot hold."""
    for axis, padded in ((2, height), (3, width)):
        length = number(x.shape[axis], x)
        period = number(torch.sym_max(2 * (x.shape[axis] - 1), 1), x)
        index = torch.arange(padded, device=x.device) % period
        x = x.index_select(axis, torch.where(index < length, index, period - index))
    return x


def number(size: Size, like: Tensor) -> Tensor:
    """A size as a tensor int64 (1,): converters to ONNX take sizes as operands of few operators only."""
    return torch.full((1,), size, dtype=torch.int64, device=like.device)


def unshuffled_pixels(image: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C side^2, H / side, W / side), rounded up: blocks of pixels as channels.

    Sides that are no multiples are extended by reflection at the bottom and on the right.
    """
    height, width = ((length + side - 1) // side * side for length in image.shape[-2:])
    return F.pixel_unshuffle(extended(image, height, width), side)
