"""RFDN in pair planes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks import MaskGuidedNetwork
from ...ops import pair_interpolate_, pair_pool
from ...runtimes.cpu.chains import PairChain, Stage
from ...runtimes.cpu.pairs import Grid, PairConv, Planes, lanes, weight_and_bias
from ...runtimes.cpu.plan import Buffers, PairWeights, closing_pair, from_bytes
from . import network as rfdn

ROWS = 8  # of a grid of patches that are floats at the same time


class _Gate:
    """ESA: what it multiplies with comes from a map at a third of the resolution and from the pixel itself.

    ``reduce`` and ``expand`` are stages of the chains before and after it.
    """

    def __init__(self, esa: rfdn.ESA):
        self.esa, self.inner = esa, esa.conv1.out_channels
        self.pairs = self.inner // 2
        self.reduce = PairConv.of(esa.conv1)
        strided = Stage(PairConv.of(esa.conv2), ("work", self.pairs), "strided")
        self.strided = PairChain([strided], ["work", "strided"])
        # conv4(wide + conv_f(reduced)) in one: conv4 and the product of the two 1x1 convolutions, side by side.
        (outer, outer_bias), (own, own_bias) = weight_and_bias(esa.conv4), weight_and_bias(esa.conv_f)
        assert outer_bias is not None
        assert own_bias is not None
        outer, own = outer[:, :, 0, 0].double(), own[:, :, 0, 0].double()
        weight = torch.cat([outer, outer @ own], dim=1)[..., None, None].float()
        self.expand = PairConv(weight, outer_bias + (outer @ own_bias.double()).float())

    def _small(self, x: Tensor) -> Tensor:
        esa = self.esa
        return esa.conv3_(F.relu(esa.conv3(F.relu(esa.conv_max(x)))))

    def on_image(self, area: Grid, work: Planes, strided: Planes) -> None:
        """From ``reduce`` in ``work``, from pair ``pairs`` on, make what stands before it there and completes it."""
        height, width = area.size
        self.strided(area, {"work": work, "strided": strided}, masks={"strided": _odd_rows(height, width)})
        size, step = (7, 3) if self.esa.pool else (1, 1)
        pooled = pair_pool(strided.data, 0, self.pairs, height, width, size, step)
        small = self._small(pooled[None])[0].contiguous()
        if area.place is None:
            pair_interpolate_(work.data, 0, small, height, width)
            return
        rows, columns = self.esa.enlargement(small.shape[1:], (height, width), area.place)
        for pair, target in zip(small.unflatten(0, (-1, 2)), work.inner(height, width), strict=False):
            target.copy_((rows @ pair @ columns).permute(1, 2, 0))

    def on_patches(self, area: Grid, work: Planes) -> None:
        """The same for patches in a grid."""
        assert not self.esa.pool
        reduced, target = (area.patches(work, first, self.pairs) for first in (self.pairs, 0))
        for some, into in zip(reduced.split(ROWS), target.split(ROWS), strict=True):
            given = some.flatten(2, 3).flatten(0, 1).float()
            wide = self._small(F.conv2d(given, self.esa.conv2.weight, self.esa.conv2.bias, stride=2))
            wide = F.interpolate(wide, size=area.size, mode="bilinear", align_corners=False)
            into.copy_(wide.unflatten(1, (self.pairs, 2)).unflatten(0, (len(into), area.across)))


@functools.lru_cache(maxsize=8)
def _odd_rows(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The mask of what a convolution of stride 2 keeps, as far as rows go."""
    return lanes(torch.ones(width, dtype=torch.bool)), torch.arange(height).remainder(2).to(torch.uint8)


def _block(block: rfdn.RFDB, number: int, gate: _Gate, before: _Gate | None) -> PairChain:
    """RFDB as a chain, from the gate ``before`` of the previous block to the input of its own.

    Its planes are what the block reads, its joined output before the gate, the gate's work, and the latter two of the
    previous block.
    """
    distil = [PairConv.of(getattr(block, f"c{i}_d"), rfdn.SLOPE) for i in (1, 2, 3)]
    residual = [PairConv.of(getattr(block, f"c{i}_r"), rfdn.SLOPE) for i in (1, 2, 3)]
    last = PairConv.of(block.c4, rfdn.SLOPE)
    # Each distilled part starts at a new pair, so an odd number of channels leaves a channel of zeros.
    weight, bias = weight_and_bias(block.c5)
    padded = [F.pad(part, (0, 0, 0, 0, 0, last.channels - part.shape[1])) for part in weight.chunk(4, dim=1)]
    join = PairConv(torch.cat(padded, dim=1), bias)

    pairs, part = residual[0].pairs, last.channels // 2
    x = "x", 0 if before is None else (number - 1) * pairs
    whole, stages = ["x", "joined", "work"], []
    if before is not None:
        whole += ["joined before", "work before"]
        stages += [Stage(before.expand, "work before", x, "joined before", gate=True)]
    stages += [
        Stage(residual[0], x, "first", x),
        Stage(residual[1], "first", "second", "first"),
        Stage(residual[2], "second", "third", "second"),
        Stage(distil[0], x, "kept"),
        Stage(distil[1], "first", ("kept", part)),
        Stage(distil[2], "second", ("kept", 2 * part)),
        Stage(last, "third", ("kept", 3 * part)),
        Stage(join, "kept", "joined"),
        Stage(gate.reduce, "joined", ("work", gate.pairs)),
    ]
    return PairChain(stages, whole)


class _Trunk:
    """The blocks of one half. The gate of the last of them, the convolution of their concatenated outputs and the long
    skip are in ``end``: stages that write the place ``out`` and that belong to the chain of what follows.
    """

    def __init__(self, half: rfdn.BaseNet | rfdn.RefineNet):
        blocks = [getattr(half, f"B{i}") for i in range(1, half.blocks + 1)]
        self.gates = [_Gate(block.esa) for block in blocks]
        before = [None, *self.gates]
        self.chains = [_block(block, i, self.gates[i], before[i]) for i, block in enumerate(blocks)]
        channels, inner = half.LR_conv.out_channels, self.gates[0].inner
        # Two of what a block reads of the block before.
        self.planes: dict[str, int | tuple[int, int]] = {"outputs": len(blocks) * channels}
        self.planes |= {f"joined {i}": channels for i in range(2)} | {f"work {i}": 2 * inner for i in range(2)}
        last = len(blocks) - 1
        self.whole = ["x", "outputs", f"joined {last % 2}", f"work {last % 2}"]
        part = "outputs", last * (channels // 2)
        self.end = [
            Stage(self.gates[-1].expand, f"work {last % 2}", part, f"joined {last % 2}", gate=True),
            Stage(PairConv.of(half.c[0], rfdn.SLOPE), "outputs", "concatenated"),
            Stage(PairConv.of(half.LR_conv), "concatenated", "out", "x"),
        ]

    def __call__(self, area: Grid, x: Planes, buffers: Buffers) -> None:
        for i, (chain, gate) in enumerate(zip(self.chains, self.gates, strict=True)):
            work = buffers[f"work {i % 2}"]
            given = {"x": buffers["outputs"] if i else x, "joined": buffers[f"joined {i % 2}"], "work": work}
            if i:
                given |= {"joined before": buffers[f"joined {1 - i % 2}"], "work before": buffers[f"work {1 - i % 2}"]}
            chain(area, given)
            if area.down * area.across == 1:
                gate.on_image(area, work, buffers[f"work {1 - i % 2}"])  # which the next block writes anew
            else:
                gate.on_patches(area, work)


class RfdnWeights(PairWeights):
    def __init__(self, network: MaskGuidedNetwork):
        super().__init__(network)
        base, refine, scale = network.base, network.refine, self.config.scale
        assert isinstance(base, rfdn.BaseNet)
        assert isinstance(refine, rfdn.RefineNet)
        self.trunk, self.refine_trunk = _Trunk(base), _Trunk(refine)
        self.base_planes, self.refine_planes = {**self.trunk.planes, "shallow": self.channels}, self.refine_trunk.planes
        self.head = PairChain([Stage(from_bytes(base.fea_conv, self.config.value_range), "image", "x")], ["image", "x"])
        self.end = PairChain(self.trunk.end, [*self.trunk.whole, "out"])
        upsampler = PairConv.of(base.upsampler[0]), PairConv.of(refine.upsampler[0])
        self.end_in_picture = PairChain(
            [*self.trunk.end, Stage(upsampler[0], "out", "picture", enlarge=scale)],
            [*self.trunk.whole, "out", "picture"],
        )
        fuse = closing_pair(refine.conv1, refine.conv2)
        stages = [
            *self.refine_trunk.end,
            Stage(fuse[0], "out", "fused"),
            Stage(fuse[1], "fused", "cropped", crop=1),
            Stage(upsampler[1], "cropped", "picture", enlarge=scale),
        ]
        self.refine_end = PairChain(stages, [*self.refine_trunk.whole, "picture"])

    def own_chains(self) -> Iterator[PairChain]:
        yield from (self.head, self.end, self.end_in_picture, self.refine_end)
        for trunk in (self.trunk, self.refine_trunk):
            yield from trunk.chains
            yield from (gate.strided for gate in trunk.gates)

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
            self.end_in_picture(area, {**given, "picture": picture}, gain=self.gain)

    def refine(self, area: Grid, x: Planes, pictures: Tensor, buffers: Buffers) -> None:
        self.refine_trunk(area, x, buffers)
        self.refine_end(area, {**buffers, "x": x, "picture": pictures}, gain=self.gain)
