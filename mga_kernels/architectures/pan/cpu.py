"""PAN in pair planes, as the paper divides it and as a published network cut in two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...networks import MaskGuidedNetwork
from ...runtimes.cpu.chains import PairChain, Part, Stage
from ...runtimes.cpu.divided import Block, DividedWeights
from ...runtimes.cpu.pairs import Grid, PairConv, Planes
from ...runtimes.cpu.plan import Buffers, PairWeights, from_bytes
from . import network as pan


def block_stages(block: pan.SCPA) -> Block:
    """SCPA from one place to another: both branches begin in one convolution, and end side by side in ``both``."""
    begin = PairConv(torch.cat([block.conv1_a.weight, block.conv1_b.weight]), slope=pan.SLOPE)
    half = begin.channels // 4
    last = PairConv.of(block.conv3)
    stages = [
        Stage(PairConv.of(block.PAConv.k3), ("branches", half), "plain"),
        Stage(PairConv.of(block.PAConv.k2), ("branches", half), "gated", "plain", gate=True),
        Stage(PairConv.of(block.k1[0], pan.SLOPE), "branches", "both"),
        Stage(PairConv.of(block.PAConv.k4, pan.SLOPE), "gated", ("both", half)),
    ]
    return lambda x, out: [Stage(begin, x, "branches"), *stages, Stage(last, "both", out, x)]


class _Trunk:
    """The blocks of one half, each from one of two planes to the other; the first from ``x``.

    What follows the last of them begins with ``end``: stages that write the place ``out``, with the long skip.
    """

    def __init__(self, half: pan.BaseNet | pan.RefineNet):
        blocks = [block_stages(block) for block in half.SCPA_trunk if isinstance(block, pan.SCPA)]
        self.chains = [PairChain(stages("x", "out"), ["x", "out"]) for stages in blocks]
        self.planes: dict[str, int | tuple[int, int]] = {f"trunk {i}": pan.FEATURE_CHANNELS for i in range(2)}
        self.last = f"trunk {(len(self.chains) - 1) % 2}"
        self.whole = ["x", self.last]
        self.end = [Stage(PairConv.of(half.trunk_conv), self.last, "out", "x")]

    def __call__(self, area: Grid, x: Planes, buffers: Buffers) -> None:
        for i, chain in enumerate(self.chains):
            chain(area, {"x": buffers[f"trunk {1 - i % 2}"] if i else x, "out": buffers[f"trunk {i % 2}"]})


def upsampler_stages(half: Any, steps: Sequence[int], x: Part, unpadded: set[str]) -> list[Stage]:
    """From ``x``, the feature, to ``picture``."""
    stages: list[Stage] = []
    for i, step in enumerate(steps, start=1):
        enlarge = PairConv.of_enlarged(getattr(half, f"upconv{i}"), step)
        gate, conv = (
            PairConv.of(layer, pan.SLOPE) for layer in (getattr(half, f"att{i}").conv, getattr(half, f"HRconv{i}"))
        )
        stages += [
            Stage(enlarge, x, f"enlarged {i}", crop=f"upconv{i}" in unpadded),
            Stage(gate, f"enlarged {i}", f"attended {i}", f"enlarged {i}", gate=True),
            Stage(conv, f"attended {i}", f"convolved {i}", crop=f"HRconv{i}" in unpadded),
        ]
        x = f"convolved {i}"
    if "HRconv_extra" in unpadded:
        stages.append(Stage(PairConv.of(half.HRconv_extra, pan.SLOPE), x, "extra", crop=1))
        x = "extra"
    return [*stages, Stage(PairConv.of(half.conv_last, floats=True), x, "picture", crop="conv_last" in unpadded)]


class PanWeights(PairWeights):
    def __init__(self, network: MaskGuidedNetwork):
        super().__init__(network)
        base, refine, scale = network.base, network.refine, self.config.scale
        assert isinstance(base, pan.BaseNet)
        assert isinstance(refine, pan.RefineNet)
        self.trunk, self.refine_trunk = _Trunk(base), _Trunk(refine)
        self.base_planes, self.refine_planes = {**self.trunk.planes, "shallow": self.channels}, self.refine_trunk.planes
        head = Stage(from_bytes(base.conv_first, self.config.value_range), "image", "x")
        self.head = PairChain([head], ["image", "x"])
        self.end = PairChain(self.trunk.end, [*self.trunk.whole, "out"])
        stages = [*self.trunk.end, *upsampler_stages(base, base.steps, "out", set())]
        self.end_in_picture = PairChain(stages, [*self.trunk.whole, "out", "picture"])
        stages = [*self.refine_trunk.end, *upsampler_stages(refine, refine.steps, "out", pan.UNPADDED[scale])]
        self.refine_end = PairChain(stages, [*self.refine_trunk.whole, "picture"])

    def own_chains(self) -> Iterator[PairChain]:
        yield from (self.head, self.end, self.end_in_picture, self.refine_end)
        yield from (*self.trunk.chains, *self.refine_trunk.chains)

    def base(
        self, area: Grid, image: Planes, feature: Planes, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        shallow = buffers["shallow"]
        self.head(area, {"image": image, "x": shallow})
        self.trunk(area, shallow, buffers)
        given = {**buffers, "x": shallow, "out": feature}
        if picture is None:
            self.end(area, given)
        else:
            self.end_in_picture(area, {**given, "picture": picture}, added=rgb, gain=self.gain)

    def refine(self, area: Grid, x: Planes, pictures: Tensor, buffers: Buffers) -> None:
        self.refine_trunk(area, x, buffers)
        self.refine_end(area, {**buffers, "x": x, "picture": pictures}, gain=self.gain)


class DividedPanWeights(DividedWeights):
    keeps_shallow = True

    def blocks(self, half: Any) -> list[Block]:
        return [block_stages(block) for block in half.SCPA_trunk]

    def joined(self, half: Any, x: Part) -> tuple[list[Stage], Part]:
        return [Stage(PairConv.of(half.trunk_conv), x, "joined", self.second)], "joined"

    def upsampler(self, half: Any, x: Part, margin: bool = False) -> list[Stage]:
        unpadded = {"upconv1", "HRconv1", *(["conv_last"] if self.steps == (3,) else [])} if margin else set()
        return upsampler_stages(half, self.steps, x, unpadded)
