"""Stages: the layers of a network with what they read and write, of which chains are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from ...networks.layers import upsampling_steps
from .layers import Conv, Layer, slope_of

MOST_SHUFFLE = 4  # of a layer, which kernels make at once

Part = str | tuple[str, int]  # a slot, or the part of it from this channel on, see Storage.whole


@dataclass(frozen=True)
class Stage:
    """A layer of a chain, and the slots that it reads, writes, and adds before its activation.

    ``gate``: ``skip`` is multiplied by the sigmoid of the result, not added. ``crop``: a convolution without padding,
    whose patches lose so many pixels on each side. ``measure``: sums of the results and of their squares are returned.
    ``enlarge`` s: the layer's 3 s^2 channels are a picture after a pixel shuffle.

    In float maps only: ``stride``: 2 for a convolution without padding that skips every second pixel, into floats.
    ``attention``: the sum with ``skip`` is multiplied by how far the sigmoid of the result is from a half. ``silu``:
    the activation is x * sigmoid(x). ``also``: a second part that is added; ``factors`` of ``skip`` and of ``also``.
    ``parts``: a slot with the sums of a 9x9 kernel's blocks, see ``blocks``.
    """

    layer: Layer
    x: Part
    out: Part
    skip: Part | None = None
    gate: bool = False
    crop: int = 0
    measure: bool = False
    enlarge: int = 1
    stride: int = 1
    attention: bool = False
    silu: bool = False
    also: Part | None = None
    factors: tuple[float, float] = (1.0, 1.0)
    parts: str | None = None

    @property
    def factor(self) -> int:
        """By which the output is larger than the input."""
        return self.layer.shuffle * self.enlarge


Block = Callable[[Part, Part], list[Stage]]  # from one slot to another


def part_of(part: Part) -> tuple[str, int]:
    """The slot, and its first channel."""
    return (part, 0) if isinstance(part, str) else part


def against_shuffle(s: int) -> str | None:
    """Why no layer can end in a pixel shuffle of ``s`` at once, or None."""
    return f"there are none for a pixel shuffle of {s}" if s > MOST_SHUFFLE else None


def stepwise(upsampler: Iterable[nn.Module], x: str, scale: int, last: Conv) -> list[Stage]:
    """``networks.layers.stepwise_upsampler`` and the ``last`` convolution, from slot ``x`` to "picture"."""
    stages = []
    layers = [layer for layer in upsampler if not isinstance(layer, nn.PixelShuffle)]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    slopes = [slope_of(layer) for layer in layers if not isinstance(layer, nn.Conv2d)] or [1.0] * len(convolutions)
    steps = upsampling_steps(scale)
    for number, (conv, slope, step) in enumerate(zip(convolutions, slopes, steps, strict=True), start=1):
        slope = slope.repeat_interleave(step**2) if isinstance(slope, Tensor) else slope
        stages.append(Stage(Conv.of(conv, slope, shuffle=step), x, f"enlarged {number}"))
        x = f"enlarged {number}"
    return [*stages, Stage(last, x, "picture")]
