"""IMDN in convolutions of our own. What a block keeps is measured by one chain and gated at the head of the next."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.distilling import IMDB, SLOPE, ContrastAttention
from ...networks.interface import Halves
from ...runtimes.cpu.distilling import KEPT, apart, distilling
from ...runtimes.cpu.layers import Conv, beside, from_bytes, stacked, weight_and_bias
from ...runtimes.cpu.pairs import Grid
from ...runtimes.cpu.plan import Buffers, PairWeights
from ...runtimes.cpu.rescaled import Given, RescaledChain, TrunkWeights
from ...runtimes.cpu.stages import Part, Stage, against_shuffle, part_of
from ...runtimes.cpu.storage import Storage, Stored
from . import network as imdn


class _Block:
    """IMDB: the ``stages`` up to its gate, which leave the kept channels in slot "to", and its last convolution."""

    def __init__(self, block: IMDB, x: Part, part: int):
        self.stages, self.join = distilling(block, x, "to", part, measure=True)
        distilled, _ = block.parts
        assert isinstance(block.cca, ContrastAttention)
        (squeeze, squeezed), (excite, excited) = (weight_and_bias(block.cca.conv_du[i]) for i in (0, 2))
        assert excited is not None
        self.squeeze, self.squeezed = beside(squeeze.chunk(KEPT, dim=1), part).flatten(1), squeezed
        self.excite = stacked(excite.chunk(KEPT), part).flatten(1)
        self.excited = torch.cat([apart(one, distilled, part) for one in excited.chunk(KEPT)])

    def gates(self, area: Grid, measured: list[Tensor], kept: Stored) -> tuple[Tensor, Tensor]:
        """Factors and offsets (count, KEPT * part) of what ``stages`` have just left in ``kept``.

        ``measured``: what they measure of an image. The deviation is the root of a small difference of large numbers,
        so it is made in float64, and rounding may not take it below zero.
        """
        total = torch.cat(measured, dim=1)[:, None] if area.is_image else kept.statistics(area).double()
        mean, square = total / math.prod(area.size)
        contrast = ((square - mean**2).clamp(min=0).sqrt() + mean).float()
        hidden = F.linear(contrast, self.squeeze, self.squeezed).relu()
        gates = F.linear(hidden, self.excite, self.excited).sigmoid()
        return gates, torch.zeros_like(gates)


class _Trunk:
    """The blocks of one half. A chain begins with the gate and the last convolution of the block before it.

    ``ends(stages, whole)`` is a chain that begins so with the last block, and writes the convolution behind the fusion,
    with the long skip, to slot ``out``. As in RFDN the fusion is a sum in a plane where layers may write over what they
    have read; elsewhere all outputs are kept.
    """

    def __init__(self, half: imdn.BaseNet | imdn.RefineNet, weights: PairWeights):
        self.weights, self.summed = weights, weights.storage.in_place
        self.channels, self.count = half.LR_conv.out_channels, half.blocks
        self.whole = weights.storage.whole(self.channels)
        modules = [getattr(half, f"IMDB{number}") for number in range(1, self.count + 1)]
        part = weights.storage.whole(modules[0].parts[0])
        self.blocks = [_Block(block, self._made(number), part) for number, block in enumerate(modules)]
        self.width = KEPT * part
        self.planes: dict[str, int] = {f"kept {i}": self.width for i in range(1 if self.summed else 2)}
        fused = {"block": self.whole, "sum": self.whole} if self.summed else {"outputs": self.count * self.whole}
        self.planes.update(fused)

        fusion, bias = weight_and_bias(half.c[0])
        parts = fusion.chunk(self.count, dim=1)
        joined = [
            [Stage(block.join, "scaled", self._made(number + 1), self._made(number))]
            for number, block in enumerate(self.blocks)
        ]
        if self.summed:
            for number, (stages, weight) in enumerate(zip(joined, parts, strict=True)):
                slope = SLOPE if number == self.count - 1 else 1.0
                adding = Conv(weight, None if number else bias, slope)
                stages.append(Stage(adding, "block", "sum", "sum" if number else None))
        else:
            joined[-1].append(Stage(Conv(beside(parts, self.whole), bias, SLOPE), "outputs", "sum"))
        self.begin = weights.chain(self.blocks[0].stages, ["x", "to"])
        self.chains = [
            self._rescaled([*stages, *block.stages], ["to"])
            for stages, block in zip(joined, self.blocks[1:], strict=False)
        ]
        self.end = [*joined[-1], Stage(Conv.of(half.LR_conv), "sum", "out", "x")]

    def _made(self, number: int) -> Part:
        """Where the output of so many blocks is."""
        if not number:
            return "x"
        return "block" if self.summed else ("outputs", (number - 1) * self.whole)

    def _rescaled(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        used = {part_of(part)[0] for stage in stages for part in (stage.x, stage.skip, stage.out) if part}
        given = [name for name in ("x", *self.planes) if name in used]
        return RescaledChain(self.weights.chain, self.width, 1.0, False, stages, [*given, *whole])

    def ends(self, stages: list[Stage], whole: list[str]) -> RescaledChain:
        return self._rescaled([*self.end, *stages], whole)

    def __call__(self, area: Grid, x: Stored, buffers: Buffers, end: RescaledChain, given: Given, gain: float) -> None:
        raw = buffers["kept 0"]
        slots: Given = {**{name: buffers[name] for name in self.planes}, "x": x}
        measured = self.begin(area, {"x": x, "to": raw})
        for number, (block, chain) in enumerate(zip(self.blocks, self.chains, strict=False), start=1):
            to = buffers.get(f"kept {number % 2}", raw)
            measured = chain(area, {**slots, "raw": raw, "to": to}, *block.gates(area, measured, raw))
            raw = to
        end(area, {**slots, **given, "raw": raw}, *self.blocks[-1].gates(area, measured, raw), gain=gain)


class ImdnWeights(TrunkWeights[imdn.BaseNet, imdn.RefineNet]):
    faster = "float32"
    any_settings = True
    tight = False

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        """Packed weights in bf16 have pairs of channels."""
        base = halves.base
        assert isinstance(base, imdn.BaseNet)
        channels = base.LR_conv.out_channels
        if kept.narrow and channels % 2:
            return f"there are none for {channels} channels, an odd number"
        if not any(isinstance(module, ContrastAttention) for module in base.modules()):
            return "there are none for IMDN without attention; simplified_imdn is that"
        return against_shuffle(halves.config.scale)

    def prepare_base(self, base: imdn.BaseNet) -> None:
        self.trunk = _Trunk(base, self)
        self.channels = self.trunk.channels
        self.base_planes = {**self.trunk.planes, **self.shallow}
        self.head = self.chain([Stage(from_bytes(base.fea_conv, self.value_range), "image", "x")], ["image", "x"])
        self.end = self.trunk.ends([], ["out"])
        upsampler = Stage(Conv.of(base.upsampler[0]), "out", "picture", enlarge=self.config.scale)
        self.end_in_picture = self.trunk.ends([upsampler], ["out", "picture"])

    def prepare_refine(self, refine: imdn.RefineNet) -> None:
        self.refine_trunk = _Trunk(refine, self)
        self.refine_planes = self.refine_trunk.planes
        fuse = self.closing_pair(refine.conv1, refine.conv2)
        stages = [
            Stage(fuse[0], "out", "hidden"),
            Stage(fuse[1], "hidden", "cropped", crop=1),
            Stage(Conv.of(refine.upsampler[0]), "cropped", "picture", enlarge=self.config.scale),
        ]
        self.refine_end = self.refine_trunk.ends(stages, ["picture"])
