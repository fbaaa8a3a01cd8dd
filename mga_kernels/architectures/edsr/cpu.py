"""EDSR in convolutions of our own. Each block's result takes the place of its input, to which it adds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...networks.layers import upsampling_steps
from ...runtimes.cpu.layers import Conv, weight_and_bias
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Stage


class EdsrWeights(PlainWeights):
    """``stages`` end with the first convolution once more, which takes less than to keep till then what it made."""

    def stages(self, base: Any) -> list[Stage]:
        first = self.less_mean(base.conv_first, base.mean, factor=self.value_range / 255)
        stages = [Stage(first, "image", "x")]
        for block in base.body:
            weight, bias = weight_and_bias(block.conv2)
            second = Conv(weight * block.residual, None if bias is None else bias * block.residual)
            stages += [Stage(Conv.of(block.conv1, 0.0), "x", "hidden"), Stage(second, "hidden", "x", "x")]
        return [
            *stages,
            Stage(first, "image", "hidden"),
            Stage(Conv.of(base.conv_after_body), "x", "feature", "hidden"),
        ]

    def end(self, base: Any) -> list[Stage]:
        stages: list[Stage] = []
        x = "feature"
        convolutions = [layer for layer in base.upsampler if isinstance(layer, nn.Conv2d)]
        steps = upsampling_steps(self.config.scale)
        for number, (conv, step) in enumerate(zip(convolutions, steps, strict=True), start=1):
            stages.append(Stage(Conv.of(conv, shuffle=step), x, f"enlarged {number}"))
            x = f"enlarged {number}"
        weight, bias = weight_and_bias(base.conv_last)
        assert bias is not None
        return [*stages, Stage(Conv(weight, bias + torch.tensor(base.mean), floats=True), x, "picture")]
