"""MSRResNet cut in two, in convolutions of our own."""

from __future__ import annotations

from ...networks.layers import ResidualBlock, each
from ...runtimes.cpu.divided import DividedWeights
from ...runtimes.cpu.layers import Conv
from ...runtimes.cpu.stages import Block, Part, Stage
from . import network as msrresnet
from .divided import MsrresnetHalf


class MsrresnetWeights(DividedWeights[MsrresnetHalf]):
    faster = "float32"
    slope = msrresnet.SLOPE

    def blocks(self, half: MsrresnetHalf) -> list[Block]:
        def stages(block: ResidualBlock) -> Block:
            first, second = Conv.of(block.conv1, 0.0), Conv.of(block.conv2)
            return lambda x, out: [Stage(first, x, "hidden"), Stage(second, "hidden", out, x)]

        return [stages(block) for block in each(ResidualBlock, half.recon_trunk)]

    def upsampler(self, half: MsrresnetHalf, x: Part, margin: bool = False) -> list[Stage]:
        stages = []
        for i, step in enumerate(self.steps, start=1):
            layer = Conv.of(getattr(half, f"upconv{i}"), msrresnet.SLOPE, shuffle=step)
            stages.append(Stage(layer, x, f"enlarged {i}", crop=step if margin and i == 1 else 0))
            x = f"enlarged {i}"
        stages.append(Stage(Conv.of(half.HRconv, msrresnet.SLOPE), x, "convolved"))
        return [*stages, Stage(Conv.of(half.conv_last, floats=True), "convolved", "picture")]
