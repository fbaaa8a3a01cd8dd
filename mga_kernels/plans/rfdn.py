"""RFDN-M in bf16 on the CPU: the whole road from bytes to bytes in pair planes, with buffers that are made once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import MaskGuidedNetwork, rfdn
from ..networks.layers import Place, pad_by_reflection
from ..networks.mask import MaskPrediction
from ..ops import filter_and_select
from ..ops.grid import mirror_indices
from .pairs import VECTOR, Grid, PairChain, PairConv, Planes, Stage, weight_and_bias
from .plan import Plan

ACROSS = 32  # patches in a row of the grid


class _Gate:
    """ESA: what it multiplies with comes from a map at a third of the resolution and from the pixel itself.

    ``reduce`` and ``expand`` are stages of the chains before and after it.
    """

    def __init__(self, esa: rfdn.ESA):
        self.esa, self.inner = esa, esa.conv1.out_channels
        self.pairs = self.inner // 2
        self.reduce = PairConv.of(esa.conv1)
        self.strided = PairConv.of(esa.conv2)
        # conv4(wide + conv_f(reduced)) in one: conv4 and the product of the two 1x1 convolutions, side by side.
        (outer, outer_bias), (own, own_bias) = weight_and_bias(esa.conv4), weight_and_bias(esa.conv_f)
        outer, own = outer[:, :, 0, 0].double(), own[:, :, 0, 0].double()
        weight = torch.cat([outer, outer @ own], dim=1)[..., None, None].float()
        self.expand = PairConv(weight, outer_bias + (outer @ own_bias.double()).float())

    def _small(self, x: Tensor) -> Tensor:
        esa = self.esa
        return esa.conv3_(F.relu(esa.conv3(F.relu(esa.conv_max(x)))))

    def on_image(self, work: Planes, strided: Planes, place: Place | None) -> None:
        """From ``reduce`` in ``work``, from pair ``pairs`` on, make what stands before it there and completes it."""
        height, width = work.height, work.width
        self.strided(strided, work, x_pair=self.pairs, rows=torch.arange(height).remainder(2).to(torch.uint8))
        size, step = (7, 3) if self.esa.pool else (1, 1)
        pooled = torch.ops.mga.pair_pool(strided.data, 0, self.pairs, height, width, size, step)
        small = self._small(pooled[None])[0].contiguous()
        if place is None:
            torch.ops.mga.pair_interpolate_(work.data, 0, small, height, width)
            return
        rows, columns = self.esa.enlargement(small.shape[1:], (height, width), place)
        for pair, target in zip(small.unflatten(0, (-1, 2)), work.inner(height, width), strict=False):
            target.copy_((rows @ pair @ columns).permute(1, 2, 0))

    def on_patches(self, work: Planes, grid: Grid) -> None:
        """The same for patches in a grid."""
        assert not self.esa.pool
        reduced = grid.patches(work, self.pairs, self.pairs).flatten(2, 3).flatten(0, 1).float()
        wide = self._small(F.conv2d(reduced, self.esa.conv2.weight, self.esa.conv2.bias, stride=2))
        wide = F.interpolate(wide, size=(grid.side, grid.side), mode="bilinear", align_corners=False)
        target = grid.patches(work, 0, self.pairs)
        target.copy_(wide.unflatten(1, (self.pairs, 2)).unflatten(0, (grid.down, grid.across)))

    def stage(self, number: int, work: int, joined: int, outputs: int, lead: int) -> Stage:
        """The gate of block ``number``, whose output is that part of ``outputs``."""
        pairs = self.expand.channels // 2
        return Stage(self.expand, work, outputs, out_pair=number * pairs, skip=joined, gate=True, lead=lead)


def _block(block: rfdn.RFDB, number: int, gate: _Gate, before: _Gate | None) -> PairChain:
    """RFDB as a chain, from the gate ``before`` of the previous block to the input of its own.

    Planes: what the block reads, its joined output before the gate, the gate's work, and the latter two of the previous
    block. Of its residual steps and of what is distilled only the rows in use are kept.
    """
    distil = [PairConv.of(getattr(block, f"c{i}_d"), rfdn.SLOPE) for i in (1, 2, 3)]
    residual = [PairConv.of(getattr(block, f"c{i}_r"), rfdn.SLOPE) for i in (1, 2, 3)]
    last = PairConv.of(block.c4, rfdn.SLOPE)
    # Each distilled part starts at a new pair, so an odd number of channels leaves a channel of zeros.
    weight, bias = weight_and_bias(block.c5)
    padded = [F.pad(part, (0, 0, 0, 0, 0, last.channels - part.shape[1])) for part in weight.chunk(4, dim=1)]
    join = PairConv(torch.cat(padded, dim=1), bias)

    x, joined, work, joined_before, work_before = range(5)
    first, second, third, kept = range(3 if before is None else 5, 7 if before is None else 9)
    pairs, part = residual[0].pairs, last.channels // 2
    start = 0 if before is None else (number - 1) * pairs
    stages = [] if before is None else [before.stage(number - 1, work_before, joined_before, x, lead=4)]
    stages += [
        Stage(residual[0], x, first, x_pair=start, skip=x, skip_pair=start, lead=3),
        Stage(residual[1], first, second, skip=first, lead=2),
        Stage(residual[2], second, third, skip=second, lead=1),
        Stage(distil[0], x, kept, x_pair=start),
        Stage(distil[1], first, kept, out_pair=part),
        Stage(distil[2], second, kept, out_pair=2 * part),
        Stage(last, third, kept, out_pair=3 * part),
        Stage(join, kept, joined),
        Stage(gate.reduce, joined, work, out_pair=gate.pairs),
    ]
    return PairChain(stages, [(pairs, 4), (pairs, 3), (pairs, 3), (4 * part, 1)])


class _Scratch:
    """``joined`` and ``work`` are two each, because a block reads those of the block before."""

    def __init__(self, channels: int, inner: int, height: int, width: int, blocks: int):
        self.joined = [Planes(channels, height, width) for _ in range(2)]
        self.work = [Planes(2 * inner, height, width) for _ in range(2)]
        self.strided = Planes(inner, height, width)
        self.outputs = Planes(blocks * channels, height, width)

    @staticmethod
    def channels(channels: int, inner: int, blocks: int) -> int:
        """Channels of all planes together."""
        return (2 + blocks) * channels + 5 * inner


class _Trunk:
    """The blocks of one half, the convolution of their concatenated outputs, and the long skip."""

    def __init__(self, half: rfdn.BaseNet | rfdn.RefineNet):
        blocks = [getattr(half, f"B{i}") for i in range(1, half.blocks + 1)]
        self.gates = [_Gate(block.esa) for block in blocks]
        before = [None, *self.gates]
        self.chains = [_block(block, i, self.gates[i], before[i]) for i, block in enumerate(blocks)]
        join, last = PairConv.of(half.c[0], rfdn.SLOPE), PairConv.of(half.LR_conv)
        outputs, shallow, out, joined_before, work_before, joined = range(6)
        stages = [
            self.gates[-1].stage(len(blocks) - 1, work_before, joined_before, outputs, lead=2),
            Stage(join, outputs, joined, lead=1),
            Stage(last, joined, out, skip=shallow),
        ]
        self.end = PairChain(stages, [(last.pairs, 3)])

    def scratch(self, channels: int, height: int, width: int) -> _Scratch:
        return _Scratch(channels, self.gates[0].inner, height, width, len(self.gates))

    def scratch_channels(self, channels: int) -> int:
        return _Scratch.channels(channels, self.gates[0].inner, len(self.gates))

    def __call__(
        self, out: Planes, x: Planes, scratch: _Scratch, grid: Grid | None = None, place: Place | None = None
    ) -> None:
        planes: list[Planes] = []
        for i, (chain, gate) in enumerate(zip(self.chains, self.gates, strict=True)):
            before, planes = planes[1:3], [scratch.outputs if i else x, scratch.joined[i % 2], scratch.work[i % 2]]
            chain([*planes, *before], grid)
            if grid is None:
                gate.on_image(planes[2], scratch.strided, place)
            else:
                gate.on_patches(planes[2], grid)
        self.end([scratch.outputs, x, out, *planes[1:3]], grid)


class _Mask:
    """The mask branch on the coarse feature."""

    def __init__(self, mask: MaskPrediction, order: str):
        self.module, self.order = mask, order
        self.hidden = PairConv.of(mask.conv1, 0.0)
        weight, bias = weight_and_bias(mask.conv2)
        if len(bias) == 2:  # softmax of two is the sigmoid of their difference
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        self.score = PairConv(weight, bias)

    def __call__(self, feature: Planes, hidden: Planes, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        p = self.module.patch_size
        self.hidden(hidden, feature)
        self.score(scores, hidden)
        score = scores[None, :1]
        if self.module.conv2.out_channels == 1:
            probability = F.leaky_relu(F.avg_pool2d(score, p), 0.1)
        elif self.module.order == "softmax-then-pool":
            probability = F.avg_pool2d(score.sigmoid(), p)
        else:
            probability = F.avg_pool2d(score, p).sigmoid()
        source = probability if self.module.filter_source == "probability" else F.avg_pool2d(feature.read()[None], p)
        weight, bias = self.module.conv_kernel.parameters()
        return filter_and_select(probability[:, 0], source, weight, bias, k, self.order)


def _fuse(conv1: nn.Conv2d, conv2: nn.Conv2d) -> tuple[PairConv, PairConv]:
    """The two convolutions that consume the halo.

    A trained bias of conv1 can be many times what the convolution adds to it. It is kept out of what is stored between
    the two in bf16 and goes into the bias of conv2, which has no padding.
    """
    (weight1, bias1), (weight2, bias2) = weight_and_bias(conv1), weight_and_bias(conv2)
    moved = bias2.double() + weight2.double().sum(dim=(2, 3)) @ bias1.double()
    return PairConv(weight1, bias1, 0.1, shift=bias1), PairConv(weight2, moved.float())


class RfdnWeights:
    """The network's weights as the plans of all sizes use them."""

    def __init__(self, network: MaskGuidedNetwork):
        base, refine, self.config = network.base, network.refine, network.config
        assert isinstance(base, rfdn.BaseNet)
        assert isinstance(refine, rfdn.RefineNet)
        self.channels = base.fea_conv.out_channels
        self.head, self.base = PairConv.of(base.fea_conv), _Trunk(base)
        self.upsampler = PairConv.of(base.upsampler[0])
        self.mask = _Mask(network.mask, self.config.selection)
        self.refine, self.fuse = _Trunk(refine), _fuse(refine.conv1, refine.conv2)
        self.patch_upsampler = PairConv.of(refine.upsampler[0])

    description = "bfloat16 with float32 sums, in convolutions of our own"
    takes_place = True

    def plan(self, height: int, width: int, capacity: int) -> RfdnPlan:
        return RfdnPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, k: int) -> int:
        """Memory of a plan and of the picture that it makes."""
        p, scale = self.config.patch_size, self.config.scale
        padded = [math.ceil(side / p) * p for side in (height, width)]
        grid = Grid(max(k, 1), p + 2, ACROSS)
        planes = Planes.pixels(height, width) * (3 + self.base.scratch_channels(self.channels) + self.channels)
        planes += Planes.pixels(*padded) * self.channels * (1 if padded == [height, width] else 2)
        planes += Planes.pixels(grid.height, grid.width) * (
            self.refine.scratch_channels(self.channels) + 3 * self.channels
        )
        floats = 2 * math.prod(padded) + self.patch_upsampler.channels * grid.height * grid.width
        return 2 * planes + 4 * floats + 3 * scale**2 * math.prod(padded)


class RfdnPlan(Plan):
    """RFDN-M in bf16 with float32 sums. Memory is allocated here, once; the methods allocate only what is small."""

    def __init__(self, weights: RfdnWeights, height: int, width: int, capacity: int):
        super().__init__(weights.config, height, width, capacity)
        self.weights = weights
        smallest, channels = weights.config.definition.minimum_size, weights.channels
        seen = max(height, smallest), max(width, smallest)  # what the network is given
        side, count = weights.config.patch_size + 2, max(capacity, 1)
        self.image, self.shallow = Planes(3, *seen), Planes(channels, *seen)
        self.scratch = weights.base.scratch(channels, *seen)
        self.feature = Planes(channels, *self.padded)
        self.hidden = self.scratch.joined[0] if self.padded == seen else Planes(channels, *self.padded)
        self.scores = torch.empty(2, *self.padded)
        self.grid, self.inner = Grid(count, side, ACROSS), Grid(count, side, ACROSS, inset=1)
        size = (channels, self.grid.height, self.grid.width)
        self.taken, self.count = Planes(*size), 0
        self.refining, self.fused = Planes(*size), Planes(*size)
        self.patch_scratch = weights.refine.scratch(*size)
        self.planar = torch.empty(weights.patch_upsampler.channels, *size[1:])

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        weights, planes = self.weights, self.image
        pixels = image.permute(2, 0, 1).to(torch.bfloat16)[None]
        planes.write(pad_by_reflection(pixels, planes.height, planes.width)[0])
        weights.head(self.shallow, planes)
        _clear_beyond(self.feature, planes.height, planes.width)
        weights.base(self.feature, self.shallow, self.scratch, place=self.place)
        if out is not None:
            scale = self.config.scale
            torch.ops.mga.pair_upsample_(
                out[: planes.height * scale, : planes.width * scale],
                self.feature.data,
                self.feature.pairs,
                weights.upsampler.weight,
                weights.upsampler.ends,
                planes.height,
                planes.width,
                scale,
                1 / self.config.value_range,
            )
        _extend(self.feature, planes.height, planes.width)

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.weights.mask(self.feature, self.hidden, self.scores, k)

    def gather(self, indices: Tensor) -> None:
        self.count = indices.shape[1]
        torch.ops.mga.pair_gather_(
            self.taken.data,
            self.feature.data,
            self.taken.pairs,
            *self.padded,
            indices,
            self.config.patch_size,
            1,
            ACROSS,
        )

    def patches(self) -> Tensor:
        return self.grid.patches(self.taken, 0, self.taken.pairs).flatten(2, 3).flatten(0, 1)[: self.count].clone()

    def load(self, patches: Tensor) -> None:
        self.count = len(patches)
        cells = self.grid.patches(self.taken, 0, self.taken.pairs)
        cells.copy_(
            F.pad(patches, (0, 0, 0, 0, 0, 0, 0, self.grid.down * ACROSS - self.count))
            .unflatten(1, (-1, 2))
            .unflatten(0, (self.grid.down, ACROSS))
        )

    def refined(self) -> Tensor:
        weights, p, scale = self.weights, self.config.patch_size, self.config.scale
        weights.refine(self.refining, self.taken, self.patch_scratch, self.grid)
        weights.fuse[0](self.patch_scratch.joined[0], self.refining, grid=self.grid)
        weights.fuse[1](self.fused, self.patch_scratch.joined[0], grid=self.inner)
        weights.patch_upsampler(self.planar, self.fused, grid=self.inner)
        step = self.grid.side + 1
        cells = F.pad(self.planar, (0, 1, 0, 1)).unflatten(2, (ACROSS, step)).unflatten(1, (self.grid.down, step))
        cells = cells[: 3 * scale**2, :, 1 : 1 + p, :, 1 : 1 + p].permute(1, 3, 0, 2, 4).flatten(0, 1)
        return (
            (F.pixel_shuffle(cells[: self.count], scale) * (255 / self.config.value_range)).round().clamp(0, 255).byte()
        )

    def decomposed(self, out: Tensor) -> None:
        raise NotImplementedError("to be written with the plans of the other networks")


def _clear_beyond(planes: Planes, height: int, width: int) -> None:
    planes.data[:, 1 + height :].zero_()
    planes.data[:, :, VECTOR + width :].zero_()


def _extend(planes: Planes, height: int, width: int) -> None:
    """Fill the rows and columns beyond the image by reflection."""
    inner = planes.inner()
    for axis, length in ((1, height), (2, width)):
        more = inner.shape[axis] - length
        if more:
            source = mirror_indices(length, length + more, inner.device)[length:]
            inner.narrow(axis, length, more).copy_(inner.index_select(axis, source))
