"""RFDN in convolutions of our own."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import pair_pool
from ...runtimes.cpu.layers import Conv, beside, from_bytes, weight_and_bias
from ...runtimes.cpu.pairs import Grid, lanes
from ...runtimes.cpu.plan import Buffers, PairPlan, PairWeights, PlaneSizes
from ...runtimes.cpu.stages import Part, Stage, part_of
from ...runtimes.cpu.storage import Chain, Stored
from ...runtimes.cpu.trunks import StoredTrunkWeights, Trunk
from . import network as rfdn

TOGETHER = 1 << 18  # values of patches, in whole rows of a grid, that are copied at the same time: 1 MiB as floats
DENSE = 1024  # values of a patch up to which matrices of all of them cost less than small convolutions
WHOLE = ("x", "outputs", "sum", "joined", "work", "joined before", "work before")  # that chains are given


class _Gate:
    """ESA: what it multiplies with comes from a map at a third of the resolution and from the pixel itself.

    ``reduce`` and ``expand`` are stages of the chains before and after it.
    """

    def __init__(self, esa: rfdn.ESA, weights: PairWeights):
        # PyTorch chooses by how weights lie in memory how it sums, and a copy of a network may have them otherwise.
        self.esa = copy.deepcopy(esa)
        for parameter in self.esa.parameters():
            parameter.data = parameter.data.contiguous()
        self.inner, self.narrow = esa.conv1.out_channels, weights.storage.narrow
        self.part = weights.storage.whole(self.inner)
        self.reduce = Conv.of(esa.conv1)
        strided = Stage(Conv.of(esa.conv2), ("work", self.part), "strided", stride=1 if self.narrow else 2)
        self.strided = weights.chain([strided], ["work", "strided"])
        # conv4(wide + conv_f(reduced)) in one: conv4 and the product of the two 1x1 convolutions, side by side.
        (outer, outer_bias), (own, own_bias) = weight_and_bias(esa.conv4), weight_and_bias(esa.conv_f)
        assert outer_bias is not None
        assert own_bias is not None
        outer, own = outer[:, :, 0, 0].double(), own[:, :, 0, 0].double()
        weight = beside([one[..., None, None].float() for one in (outer, outer @ own)], self.part)
        self.expand = Conv(weight, outer_bias + (outer @ own_bias.double()).float())
        self._matrices: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # by the shape of patches

    def _small(self, x: Tensor) -> Tensor:
        esa = self.esa
        return esa.conv3_(F.relu(esa.conv3(F.relu(esa.conv_max(x)))))

    def on_image(self, area: Grid, work: Stored, strided: Stored) -> None:
        """From ``reduce`` in ``work``, from channel ``part`` on, make what stands before it there and completes it."""
        height, width = area.size
        small = self._small(self._pooled(area, work, strided)[None])[0].contiguous()
        if area.place is not None:
            rows, columns = self.esa.enlargement(small.shape[1:], (height, width), area.place)
            work.write(rows @ small @ columns)
        else:
            work.write_enlarged(small, height, width)

    def _pooled(self, area: Grid, work: Stored, strided: Stored) -> Tensor:
        """The strided convolution and the maximum of an image, float32."""
        height, width = area.size
        size, step = (7, 3) if self.esa.pool else (1, 1)
        if self.narrow:
            self.strided(area, {"work": work, "strided": strided}, masks={"strided": _odd_rows(height, width)})
            return pair_pool(strided.data, 0, strided.groups // 2, height, width, size, step)
        reduced = torch.empty(self.inner, (height - 3) // 2 + 1, (width - 3) // 2 + 1, dtype=torch.float32)
        self.strided(area, {"work": work, "strided": reduced})
        return _maxima(reduced, size, step)

    def on_patches(self, area: Grid, work: Stored) -> None:
        """The same for patches in a grid."""
        assert not self.esa.pool
        groups = self.part // work.step
        dense = self.part * math.prod(area.size) <= DENSE
        reduced, target = (area.patches(work, first, groups).permute(0, 1, 2, 4, 5, 3) for first in (groups, 0))
        rows = len(target) if work.by_launches else max(1, TOGETHER // math.prod(reduced.shape[1:]))
        for some, into in zip(reduced.split(rows), target.split(rows), strict=True):
            given = some.contiguous().flatten(0, 1)  # n, groups, h, w, step
            wide = self._by_matrices(given) if dense else self._wide(given.float())
            into.copy_(wide.view(into.shape))

    def _wide(self, patches: Tensor) -> Tensor:
        """What stands before ``conv4`` of patches (n, groups, h, w, step), float32, without what ``conv_f`` makes."""
        n, groups, height, width, step = patches.shape
        reduced = patches.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, : self.inner]
        wide = self._small(F.conv2d(reduced, self.esa.conv2.weight, self.esa.conv2.bias, stride=2))
        wide = F.interpolate(wide, size=(height, width), mode="bilinear", align_corners=False)
        wide = F.pad(wide, (0, 0, 0, 0, 0, self.part - self.inner))
        return wide.view(n, groups, step, height, width).permute(0, 1, 3, 4, 2).contiguous()

    def passing_bytes(self, size: tuple[int, int], itemsize: int) -> int:
        """Of a patch, what ``on_patches`` makes beside the map, of values of ``itemsize``, at most at the same time."""
        values, (height, width) = self.part * math.prod(size), size
        hidden = self.inner * ((height - 3) // 2 + 1) * ((width - 3) // 2 + 1)
        if values <= DENSE:  # what is given, what a matrix reads, what it makes
            return itemsize * (2 * values + hidden)
        return 4 * 5 * values  # what is given, as float32, its channels one by one, padded, and as the map has it

    def _by_matrices(self, patches: Tensor) -> Tensor:
        """The same of small patches: what is linear of all values of a patch in one product."""
        shape = patches.shape[1:]
        if shape not in self._matrices:
            made = self._matrices_of(shape)
            self._matrices[shape] = [(weight.to(patches.dtype), bias.to(patches.dtype)) for weight, bias in made]
        first, *others = self._matrices[shape]
        values = F.linear(patches.flatten(1), *first)
        for matrix in others:
            values = F.linear(values.relu_(), *matrix)
        return values

    def _matrices_of(self, shape: torch.Size) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of each: what the steps make of patches that are 1 in one place, less what they make of zeros.

        The first two convolutions have nothing between them, and the last is followed by the enlargement.
        """
        groups, height, width, step = shape
        esa, device = copy.deepcopy(self.esa).double(), self.esa.conv2.weight.device

        def enlarged(x: Tensor) -> Tensor:
            x = F.interpolate(esa.conv3_(x), size=(height, width), mode="bilinear", align_corners=False)
            x = F.pad(x, (0, 0, 0, 0, 0, self.part - self.inner))
            return x.unflatten(1, (groups, step)).permute(0, 1, 3, 4, 2)

        def reduced(x: Tensor) -> Tensor:
            return esa.conv_max(esa.conv2(x.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, : self.inner]))

        inner = self.inner, (height - 3) // 2 + 1, (width - 3) // 2 + 1
        steps = (reduced, shape), (esa.conv3, inner), (enlarged, inner)
        return [_as_matrix(step, given, device) for step, given in steps]


def _as_matrix(linear: Callable[[Tensor], Tensor], shape: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """A function of float64 (n, *shape) that is linear but for a bias: float32 (outputs, inputs) and (outputs)."""
    bias = linear(torch.zeros(1, *shape, dtype=torch.float64, device=device)).flatten()
    ones = torch.eye(math.prod(shape), dtype=torch.float64, device=device).view(-1, *shape)
    return (linear(ones).flatten(1) - bias).T.float().contiguous(), bias.float()


def _maxima(x: Tensor, size: int, step: int) -> Tensor:
    """``F.max_pool2d`` of (C, h, w), down and then across, in a ninth of its time."""
    for axis in (1, 2):
        x = x.unfold(axis, size, step).amax(-1)
    return x


@functools.lru_cache(maxsize=8)
def _odd_rows(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The mask of what a convolution of stride 2 keeps, as far as rows go."""
    return lanes(torch.ones(width, dtype=torch.bool)), torch.arange(height).remainder(2).to(torch.uint8)


def _block(block: rfdn.RFDB, gate: _Gate, x: Part, before: list[Stage], weights: PairWeights) -> Chain:
    """RFDB as a chain, from ``before``, the gate of the previous block, which makes ``x``, to the input of its own.

    Its planes are what the block reads or the sum that this is added to, its joined output before the gate, the gate's
    work, and the latter two of the previous block.
    """
    distil = [Conv.of(getattr(block, f"c{i}_d"), rfdn.SLOPE) for i in (1, 2, 3)]
    residual = [Conv.of(getattr(block, f"c{i}_r"), rfdn.SLOPE) for i in (1, 2, 3)]
    last = Conv.of(block.c4, rfdn.SLOPE)
    # Each distilled part starts where a part may, so that there are channels of zeros between them.
    weight, bias = weight_and_bias(block.c5)
    part = weights.storage.whole(last.channels)
    join = Conv(beside(weight.chunk(4, dim=1), part), bias)

    stages = [
        *before,
        Stage(residual[0], x, "first", x),
        Stage(residual[1], "first", "second", "first"),
        Stage(residual[2], "second", "third", "second"),
        Stage(distil[0], x, "kept"),
        Stage(distil[1], "first", ("kept", part)),
        Stage(distil[2], "second", ("kept", 2 * part)),
        Stage(last, "third", ("kept", 3 * part)),
        Stage(join, "kept", "joined"),
        Stage(gate.reduce, "joined", ("work", gate.part)),
    ]
    used = {part_of(part)[0] for stage in stages for part in (stage.x, stage.skip, stage.out) if part}
    return weights.chain(stages, [name for name in WHOLE if name in used])


class _Trunk:
    """The blocks of one half. The gate of the last of them, the convolution of their concatenated outputs and the long
    skip are in ``end``: stages that write the slot ``out`` and that belong to the chain of what follows.

    Where layers may write over what they have read, the convolution of the concatenation is a sum in a plane, to which
    each output is added; elsewhere all outputs are kept.
    """

    def __init__(self, half: rfdn.BaseNet | rfdn.RefineNet, weights: PairWeights):
        blocks = [getattr(half, f"B{i}") for i in range(1, half.blocks + 1)]
        self.gates = [_Gate(block.esa, weights) for block in blocks]
        channels, whole = half.LR_conv.out_channels, weights.storage.whole(half.LR_conv.out_channels)
        # Two of what a block reads of the block before, where it may not write over that.
        self.kept = 1 if weights.storage.in_place else 2
        sizes = {"joined": channels, "work": 2 * self.gates[0].part}
        each = {f"{name} {i}": size for name, size in sizes.items() for i in range(self.kept)}
        self.outputs = "sum" if weights.storage.in_place else "outputs"
        self.planes: PlaneSizes = {self.outputs: (1 if weights.storage.in_place else len(blocks)) * whole, **each}
        of_last = (len(blocks) - 1) % self.kept
        self.whole = ["x", self.outputs, f"joined {of_last}", f"work {of_last}"]
        weight, bias = weight_and_bias(half.c[0])
        parts = weight.chunk(len(blocks), dim=1)

        def gated(number: int, work: str, joined: str) -> tuple[Part, list[Stage]]:
            """What block ``number`` makes, and the stages for it; the last has the concatenation, too."""
            expand, last = self.gates[number].expand, number == len(blocks) - 1
            if self.outputs == "outputs":
                out = "outputs", number * whole
                joins = [Stage(Conv(beside(parts, whole), bias, rfdn.SLOPE), "outputs", "concatenated")] if last else []
                return out, [Stage(expand, work, out, joined, gate=True), *joins]
            summed = Conv(parts[number], None if number else bias, rfdn.SLOPE if last else 1.0)
            adding = Stage(summed, "output", "sum", "sum" if number else None)
            return "output", [Stage(expand, work, "output", joined, gate=True), adding]

        before: list[tuple[Part, list[Stage]]] = [("x", [])]
        before += [gated(number, "work before", "joined before") for number in range(len(blocks) - 1)]
        self.chains = [
            _block(block, gate, *made, weights) for block, gate, made in zip(blocks, self.gates, before, strict=True)
        ]
        _, end = gated(len(blocks) - 1, f"work {of_last}", f"joined {of_last}")
        self.end = [*end, Stage(Conv.of(half.LR_conv), end[-1].out, "out", "x")]

    def __call__(self, area: Grid, x: Stored, buffers: Buffers) -> None:
        for i, (chain, gate) in enumerate(zip(self.chains, self.gates, strict=True)):
            now, before = i % self.kept, (i + 1) % self.kept
            work, other = buffers[f"work {now}"], buffers[f"work {before}"]
            given = {"x": x, self.outputs: buffers[self.outputs], "joined": buffers[f"joined {now}"], "work": work}
            if i:
                given |= {"joined before": buffers[f"joined {before}"], "work before": other}
            chain(area, given)
            if area.down * area.across == 1:
                gate.on_image(area, work, other)  # which the next block writes anew
            else:
                gate.on_patches(area, work)


class RfdnWeights(StoredTrunkWeights[rfdn.BaseNet, rfdn.RefineNet]):
    faster = "bfloat16"

    def trunk_of(self, half: rfdn.BaseNet | rfdn.RefineNet) -> Trunk:
        return _Trunk(half, self)

    def room_bytes(self, plan: PairPlan, dense: bool = False) -> int:
        """With the copies of patches where all of them are made at once, those of a GPU."""
        kept, grid = super().room_bytes(plan, dense), plan.grid
        if self.mask is None or not plan.taken.by_launches:
            return kept
        gate = cast(_Trunk, self.refine_trunk).gates[0]
        return kept + grid.down * grid.across * gate.passing_bytes(grid.size, plan.taken.data.itemsize)

    def first(self, base: rfdn.BaseNet) -> Conv:
        return from_bytes(base.fea_conv, self.value_range)

    def base_upsampler(self, base: rfdn.BaseNet) -> list[Stage]:
        return [Stage(Conv.of(base.upsampler[0]), "out", "picture", enlarge=self.config.scale)]

    def refine_upsampler(self, refine: rfdn.RefineNet) -> list[Stage]:
        fuse = self.closing_pair(refine.conv1, refine.conv2)
        return [
            Stage(fuse[0], "out", "fused"),
            Stage(fuse[1], "fused", "cropped", crop=1),
            Stage(Conv.of(refine.upsampler[0]), "cropped", "picture", enlarge=self.config.scale),
        ]
