"""PAN in convolutions of our own, as the paper divides it and as a published network cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from ...networks.layers import each
from ...runtimes.cpu.divided import DividedWeights
from ...runtimes.cpu.layers import Conv, beside, from_bytes, stacked
from ...runtimes.cpu.pairs import Grid
from ...runtimes.cpu.plan import Buffers, PairWeights, PlaneSizes
from ...runtimes.cpu.stages import Block, Part, Stage
from ...runtimes.cpu.storage import Storage, Stored
from ...runtimes.cpu.trunks import StoredTrunkWeights, Trunk
from . import network as pan
from .divided import PanHalf

Upsampling = pan.BaseNet | pan.RefineNet | PanHalf


def block_stages(block: pan.SCPA, storage: Storage) -> Block:
    """SCPA from one slot to another: both branches begin in one convolution, and end side by side in ``both``."""
    branches = [block.conv1_a.weight, block.conv1_b.weight]
    half = storage.whole(len(branches[0]))
    begin = Conv(stacked(branches, half), slope=pan.SLOPE)
    last = Conv(beside(block.conv3.weight.chunk(2, dim=1), half), block.conv3.bias)
    stages = [
        Stage(Conv.of(block.PAConv.k3), ("branches", half), "plain"),
        Stage(Conv.of(block.PAConv.k2), ("branches", half), "gated", "plain", gate=True),
        Stage(Conv.of(block.k1[0], pan.SLOPE), "branches", "both"),
        Stage(Conv.of(block.PAConv.k4, pan.SLOPE), "gated", ("both", half)),
    ]
    return lambda x, out: [Stage(begin, x, "branches"), *stages, Stage(last, "both", out, x)]


class _Trunk:
    """The blocks of one half, each from one of two planes to the other; the first from ``x``.

    What follows the last of them begins with ``end``: stages that write the slot ``out``, with the long skip.
    """

    def __init__(self, half: pan.BaseNet | pan.RefineNet, weights: PairWeights):
        blocks = [block_stages(block, weights.storage) for block in half.SCPA_trunk if isinstance(block, pan.SCPA)]
        self.chains = [weights.chain(stages("x", "out"), ["x", "out"]) for stages in blocks]
        self.planes: PlaneSizes = {f"trunk {i}": pan.FEATURE_CHANNELS for i in range(2)}
        self.last = f"trunk {(len(self.chains) - 1) % 2}"
        self.whole = ["x", self.last]
        self.end = [Stage(Conv.of(half.trunk_conv), self.last, "out", "x")]

    def __call__(self, area: Grid, x: Stored, buffers: Buffers) -> None:
        for i, chain in enumerate(self.chains):
            chain(area, {"x": buffers[f"trunk {1 - i % 2}"] if i else x, "out": buffers[f"trunk {i % 2}"]})


def upsampler_stages(half: Upsampling, steps: Sequence[int], x: Part, unpadded: set[str]) -> list[Stage]:
    """From ``x``, the feature, to ``picture``."""
    stages: list[Stage] = []
    for i, step in enumerate(steps, start=1):
        enlarge = Conv.of_enlarged(getattr(half, f"upconv{i}"), step)
        gate, conv = (
            Conv.of(layer, pan.SLOPE) for layer in (getattr(half, f"att{i}").conv, getattr(half, f"HRconv{i}"))
        )
        stages += [
            Stage(enlarge, x, f"enlarged {i}", crop=f"upconv{i}" in unpadded),
            Stage(gate, f"enlarged {i}", f"attended {i}", f"enlarged {i}", gate=True),
            Stage(conv, f"attended {i}", f"convolved {i}", crop=f"HRconv{i}" in unpadded),
        ]
        x = f"convolved {i}"
    if "HRconv_extra" in unpadded:
        stages.append(Stage(Conv.of(cast(nn.Module, half.HRconv_extra), pan.SLOPE), x, "extra", crop=1))
        x = "extra"
    return [*stages, Stage(Conv.of(half.conv_last, floats=True), x, "picture", crop="conv_last" in unpadded)]


class PanWeights(StoredTrunkWeights[pan.BaseNet, pan.RefineNet]):
    faster = "bfloat16"
    adds_image = True

    def trunk_of(self, half: pan.BaseNet | pan.RefineNet) -> Trunk:
        return _Trunk(half, self)

    def first(self, base: pan.BaseNet) -> Conv:
        return from_bytes(base.conv_first, self.value_range)

    def base_upsampler(self, base: pan.BaseNet) -> list[Stage]:
        return upsampler_stages(base, base.steps, "out", set())

    def refine_upsampler(self, refine: pan.RefineNet) -> list[Stage]:
        return upsampler_stages(refine, refine.steps, "out", pan.UNPADDED[self.config.scale])


class DividedPanWeights(DividedWeights[PanHalf]):
    faster = "bfloat16"
    keeps_shallow = True

    def blocks(self, half: PanHalf) -> list[Block]:
        return [block_stages(block, self.storage) for block in each(pan.SCPA, half.SCPA_trunk)]

    def joined(self, half: PanHalf, x: Part) -> tuple[list[Stage], Part]:
        return [Stage(Conv.of(half.trunk_conv), x, "joined", self.second)], "joined"

    def upsampler(self, half: PanHalf, x: Part, margin: bool = False) -> list[Stage]:
        unpadded = {"upconv1", "HRconv1", *(["conv_last"] if self.steps == (3,) else [])} if margin else set()
        return upsampler_stages(half, self.steps, x, unpadded)
