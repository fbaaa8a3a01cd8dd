"""The information multi-distillation block (``networks.distilling``) as stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...networks.distilling import IMDB, SLOPE
from .layers import Conv, Scale, beside, weight_and_bias
from .stages import Part, Stage

KEPT = 4  # parts that a block keeps and joins


def apart(rows: Tensor, first: int, whole: int) -> Tensor:
    """(C', ...) with zeros behind its ``first`` rows, which then take up ``whole``."""
    return torch.cat([rows[:first], rows.new_zeros(whole - first, *rows.shape[1:]), rows[first:]])


def distilling(block: IMDB, x: Part, to: str, part: int, measure: bool = False) -> tuple[list[Stage], Conv]:
    """The stages from ``x`` to the kept channels in slot ``to``, and the convolution that joins them.

    Each of the KEPT parts takes up ``part`` channels, which end in zeros where a part of a slot may not begin.
    ``measure``: the stages measure what is kept.
    """
    distilled, _ = block.parts

    def convolution(step: nn.Module, slope: float) -> Conv:
        weight, bias = weight_and_bias(step)
        assert bias is not None
        return Conv(apart(weight, distilled, part), apart(bias, distilled, part), slope)

    stages: list[Stage] = []
    for number, step in enumerate((block.c1, block.c2, block.c3)):
        out = f"step {number}"
        # A convolution's result has one place, so what is kept of it is copied out of it.
        kept = Stage(Scale(part), out, (to, number * part), measure=measure)
        stages += [Stage(convolution(step, SLOPE), x, out), kept]
        x = out, part
    stages.append(Stage(convolution(block.c4, 1.0), x, (to, 3 * part), measure=measure))
    weight, bias = weight_and_bias(block.c5)
    return stages, Conv(beside(weight.chunk(KEPT, dim=1), part), bias)
