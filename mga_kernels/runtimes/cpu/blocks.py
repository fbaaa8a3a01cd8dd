"""9x9 convolutions as nine of 3x3: in tiles, with fewer products, and summed where each block of the kernel lies.

A layer makes the parts, the sums of the nine blocks; the convolution itself then adds nine of them for each value
(csrc/maps/layout.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...alone.layout import PART_CHANNELS, PARTS
from .layers import Conv
from .stages import Stage

LEAST_INPUTS = 16  # of fewer, the products of dots are less than what tiles need around theirs


def in_blocks(stages: Sequence[Stage]) -> list[Stage] | None:
    """The same stages with another one before the last, of 9x9; None where it is not, or not worth it."""
    *before, last = stages
    if not _is_large(last):
        return None
    assert isinstance(last.layer, Conv)
    return [*before, Stage(_blocks(last.layer), last.x, "parts"), replace(last, parts="parts")]


def _is_large(stage: Stage) -> bool:
    layer = stage.layer
    few = layer.floats and layer.channels <= len(PARTS[0][0]) and layer.inputs >= LEAST_INPUTS
    return layer.size == 9 and few and stage.parts is None and stage.stride == stage.factor == 1


def _blocks(layer: Conv) -> Conv:
    weight = layer.weight.new_zeros(PART_CHANNELS, layer.inputs, 3, 3, dtype=torch.float32)
    for i, row in enumerate(PARTS):
        for j, channels in enumerate(row):
            block = layer.weight[:, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            weight[list(channels[: layer.channels])] = block.float()
    return Conv(weight)
