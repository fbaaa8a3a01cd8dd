"""Layers of our convolutions as networks list them: float32 weights, whatever they are stored and computed in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv:
    """A convolution of size 1, 3, 5 or 9 with bias and leaky ReLU.

    ``weight`` (C' s^2, C, n, n); ``bias`` (C' s^2); ``slope`` of negative values, a number or (C' s^2); ``shift``
    (C' s^2) is taken off the result, so that what is stored in bf16 lies nearer to zero, not with a shuffle.
    ``shuffle`` s: a pixel shuffle follows, with the activation behind it. ``floats``: one or three channels are left as
    floats. ``phased``: see ``of_enlarged``.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        slope: float | Tensor = 1.0,
        shift: Tensor | None = None,
        shuffle: int = 1,
        floats: bool = False,
        phased: bool = False,
    ):
        outputs, self.inputs, self.size, _ = weight.shape
        self.weight, self.shuffle, self.floats, self.phased = weight.detach(), shuffle, floats, phased
        self.channels = outputs // shuffle**2
        none = torch.zeros(outputs, dtype=torch.float32)
        bias, shift = (none if given is None else given.detach().float() for given in (bias, shift))
        self.epilogue = torch.stack([bias, none + slope, shift]).detach()

    @classmethod
    def of(cls, conv: nn.Module, slope: float | Tensor = 1.0, shuffle: int = 1, floats: bool = False) -> Conv:
        return cls(*weight_and_bias(conv), slope, shuffle=shuffle, floats=floats)

    @classmethod
    def of_enlarged(cls, conv: nn.Module, factor: int, slope: float = 1.0) -> Conv:
        """What a 3x3 convolution makes of an image enlarged by repeating each pixel ``factor`` times a side.

        Each of the factor^2 phases of its output is a convolution of the small image, whose weights are the sums of
        those that meet the same pixel: two rows and columns of the nine at most.
        """
        weight, bias = weight_and_bias(conv)
        phases = weight.new_zeros(len(weight), factor, factor, *weight.shape[1:], dtype=torch.float64)
        for dy in range(factor):
            for dx in range(factor):
                for row in range(3):
                    for column in range(3):
                        y, x = (dy + row - 1) // factor + 1, (dx + column - 1) // factor + 1
                        phases[:, dy, dx, :, y, x] += weight[:, :, row, column].double()
        bias = None if bias is None else bias.repeat_interleave(factor**2)
        return cls(phases.flatten(0, 2).float(), bias, slope, shuffle=factor, phased=True)


class Scale:
    """x * factor + offset for each channel, with leaky ReLU; factors and offsets (C) may come with each call."""

    size, shuffle, floats, phased = 0, 1, False, False

    def __init__(self, channels: int, slope: float = 1.0, factors: Tensor | None = None, offsets: Tensor | None = None):
        self.inputs = self.channels = channels
        self.slopes = torch.full((channels,), slope, dtype=torch.float32)
        factors = torch.ones_like(self.slopes) if factors is None else factors
        self.epilogue = self.with_factors(factors, torch.zeros_like(self.slopes) if offsets is None else offsets)

    def with_factors(self, factors: Tensor, offsets: Tensor) -> Tensor:
        """(3, C): what a chain takes as epilogue of this layer."""
        return torch.stack([factors.float(), offsets.float(), self.slopes])


Layer = Conv | Scale


def weight_and_bias(conv: nn.Module) -> tuple[Tensor, Tensor | None]:
    assert isinstance(conv, nn.Conv2d)
    return conv.weight, conv.bias


def slope_of(activation: nn.Module) -> float | Tensor:
    """Of negative values: a number, or that of each channel."""
    if isinstance(activation, nn.PReLU):
        return activation.weight.detach()
    assert isinstance(activation, nn.LeakyReLU)
    return activation.negative_slope


def beside(parts: Sequence[Tensor], whole: int) -> Tensor:
    """The weight (C', C, n, n) of several parts of a slot, each of which takes up ``whole`` channels of it."""
    return torch.cat([F.pad(part, (0, 0, 0, 0, 0, whole - part.shape[1])) for part in parts], dim=1)


def stacked(parts: Sequence[Tensor], whole: int) -> Tensor:
    """The weight of one convolution that makes several parts of a slot."""
    return torch.cat([F.pad(part, (0, 0, 0, 0, 0, 0, 0, whole - len(part))) for part in parts])


def from_bytes(conv: nn.Module, value_range: float, slope: float | Tensor = 1.0) -> Conv:
    """The first convolution of a network that works in 0..``value_range``, for an image in 0..255."""
    weight, bias = weight_and_bias(conv)
    return Conv(weight * (value_range / 255), bias, slope)


def plus_mean(conv: nn.Conv2d, mean: Sequence[float]) -> Conv:
    """The last convolution of a network that adds a mean colour to what it makes."""
    weight, bias = weight_and_bias(conv)
    assert bias is not None
    return Conv(weight, bias + torch.tensor(mean, dtype=torch.float32), floats=True)


def closing_pair(conv1: nn.Conv2d, conv2: nn.Conv2d, narrow: bool = True) -> tuple[Conv, Conv]:
    """The two convolutions of ``layers.consume_halo``.

    A trained bias of conv1 can be many times what the convolution adds to it. It is kept out of what is stored between
    the two where that is ``narrow``, in bf16, and goes into the bias of conv2, where that has no padding.
    """
    (weight1, bias1), (weight2, bias2) = weight_and_bias(conv1), weight_and_bias(conv2)
    if not narrow or bias1 is None or bias2 is None or any(conv2.padding):
        return Conv(weight1, bias1, 0.1), Conv(weight2, bias2)
    moved = bias2.double() + weight2.double().sum(dim=(2, 3)) @ bias1.double()
    return Conv(weight1, bias1, 0.1, shift=bias1), Conv(weight2, moved.float())


def less_mean(
    conv: nn.Conv2d, mean: Sequence[float], slope: float | Tensor = 1.0, narrow: bool = True, factor: float = 1.0
) -> Conv:
    """The convolution of ``factor`` times an image in 0..255, less its mean colour by way of a last channel, of ones.

    Beyond the image are zeros after the mean is taken off, which a bias alone would not give. The last channel's
    weights are rounded to bf16 where the storage is ``narrow``; the bias makes good for that where there is image on
    all sides.
    """
    weight, bias = weight_and_bias(conv)
    assert bias is not None
    of_each = torch.tensor(mean, dtype=torch.float64).repeat_interleave(weight.shape[1] // 3)  # pixel of a block
    taken_off = (weight.double() * of_each[:, None, None]).sum(dim=1, keepdim=True)
    rounded = taken_off.bfloat16().double() if narrow else taken_off
    bias = bias.double() + (rounded - taken_off).sum(dim=(1, 2, 3))
    return Conv(torch.cat([weight.double() * factor, -rounded], dim=1).float(), bias.float(), slope)
