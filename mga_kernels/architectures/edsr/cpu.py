"""EDSR in convolutions of our own. Each block's result takes the place of its input, to which it adds."""

from __future__ import annotations

from ...networks.layers import ResidualBlock, each
from ...runtimes.cpu.layers import Conv, plus_mean, weight_and_bias
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Stage, stepwise
from . import network as edsr


class EdsrWeights(PlainWeights[edsr.BaseNet]):
    """``stages`` end with the first convolution once more, which takes less than to keep till then what it made."""

    def stages(self, base: edsr.BaseNet) -> list[Stage]:
        first = self.less_mean(base.conv_first, base.mean, factor=self.value_range / 255)
        stages = [Stage(first, "image", "x")]
        for block in each(ResidualBlock, base.body):
            weight, bias = weight_and_bias(block.conv2)
            second = Conv(weight * block.residual, None if bias is None else bias * block.residual)
            stages += [Stage(Conv.of(block.conv1, 0.0), "x", "hidden"), Stage(second, "hidden", "x", "x")]
        return [
            *stages,
            Stage(first, "image", "hidden"),
            Stage(Conv.of(base.conv_after_body), "x", "feature", "hidden"),
        ]

    def end(self, base: edsr.BaseNet) -> list[Stage]:
        return stepwise(base.upsampler, "feature", self.config.scale, plus_mean(base.conv_last, base.mean))
