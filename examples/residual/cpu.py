"""The residual network in convolutions of our own: of which stages halves are made, and in which slots results lie.

A stage is a convolution from one slot to another, with what is added to it. Slots that no other stage needs as a
whole are kept as a few rows only. ``mga_kernels.runtimes.cpu.divided`` makes the plans of it: images, patches and -D.
"""

from __future__ import annotations

import torch
from torch import nn

from mga_kernels.networks.layers import ResidualBlock, each, upsampling_steps
from mga_kernels.runtimes.cpu.divided import DividedWeights
from mga_kernels.runtimes.cpu.layers import Conv, weight_and_bias
from mga_kernels.runtimes.cpu.stages import Block, Part, Stage

from .network import MEAN, ResidualHalf


class ResidualWeights(DividedWeights[ResidualHalf]):
    keeps_shallow = True  # the state's second part is what the first convolution made
    adds_image = False

    def first(self, base: ResidualHalf) -> Conv:
        return self.less_mean(base.conv_first, MEAN)

    def last(self, conv: nn.Conv2d) -> Conv:
        weight, bias = weight_and_bias(conv)
        assert bias is not None
        mean = torch.tensor(MEAN).repeat_interleave(len(bias) // 3)  # the light upsampler has s^2 channels of a colour
        return Conv(weight, bias + mean, floats=True)

    def blocks(self, half: ResidualHalf) -> list[Block]:
        def stages(block: ResidualBlock) -> Block:
            first, second = Conv.of(block.conv1, 0.0), Conv.of(block.conv2)  # 0.0: the slope of ReLU
            return lambda x, out: [Stage(first, x, "hidden"), Stage(second, "hidden", out, x)]

        return [stages(block) for block in each(ResidualBlock, half.body)]

    def joined(self, half: ResidualHalf, x: Part) -> tuple[list[Stage], Part]:
        return [Stage(Conv.of(half.conv_after_body), x, "joined", self.second)], "joined"

    def upsampler(self, half: ResidualHalf, x: Part, margin: bool = False) -> list[Stage]:
        stages = []
        for i, step in enumerate(upsampling_steps(half.scale)):
            layer = Conv.of(half.upsampler[2 * i], shuffle=step)
            stages.append(Stage(layer, x, f"enlarged {i}", crop=step if margin and i == 0 else 0))
            x = f"enlarged {i}"
        return [*stages, Stage(self.last(half.conv_last), x, "picture")]
