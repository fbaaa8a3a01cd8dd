"""FSRCNN in pair planes: each half is one chain, of which nothing but the feature and the picture is ever stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...networks import MaskGuidedNetwork
from ...runtimes.cpu.chains import PairChain, Stage
from ...runtimes.cpu.pairs import Grid, PairConv, Planes, weight_and_bias
from ...runtimes.cpu.plan import Buffers, PairWeights, closing_pair, from_bytes
from . import network as fsrcnn


def _slopes(activation: nn.Module) -> Tensor:
    assert isinstance(activation, nn.PReLU)
    return activation.weight.detach()


def _convolutions(layers: Sequence[nn.Module], x: str, out: str) -> list[Stage]:
    """Convolutions, each with its PReLU, from place ``x`` to place ``out``."""
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    places = [x, *(f"{out} {i}" for i in range(1, len(pairs))), out]
    return [
        Stage(PairConv(*weight_and_bias(conv), _slopes(activation)), places[i], places[i + 1])
        for i, (conv, activation) in enumerate(pairs)
    ]


def transposed(conv: nn.ConvTranspose2d, scale: int) -> PairConv:
    """A 9x9 transposed convolution of stride ``scale`` as a convolution to 3 scale^2 channels and a pixel shuffle.

    Phase d of its output meets input pixel i with tap d + 4 - scale * i, so that x4 needs a neighbour to each side and
    the smaller scales two.
    """
    reach = 1 if scale == 4 else 2
    size = 2 * reach + 1
    weight = conv.weight.new_zeros(3, scale, scale, conv.in_channels, size, size)
    places = [
        (phase, i + reach, phase + 4 - scale * i)
        for phase in range(scale)
        for i in range(-reach, reach + 1)
        if 0 <= phase + 4 - scale * i < 9
    ]
    for dy, row, ky in places:
        for dx, column, kx in places:
            weight[:, dy, dx, :, row, column] = conv.weight[:, :, ky, kx].T
    assert conv.bias is not None
    return PairConv(weight.flatten(0, 2), conv.bias.repeat_interleave(scale**2))


def _upsampler(last_part: nn.Sequential, x: str, scale: int, crop: int = 0) -> list[Stage]:
    expand, activation, deconvolve = last_part
    assert isinstance(deconvolve, nn.ConvTranspose2d)
    return [
        *_convolutions([expand, activation], x, "expanded"),
        Stage(transposed(deconvolve, scale), "expanded", "picture", crop=crop, enlarge=scale),
    ]


class FsrcnnWeights(PairWeights):
    base_planes, refine_planes = {}, {}

    def __init__(self, network: MaskGuidedNetwork):
        super().__init__(network)
        base, refine, scale = network.base, network.refine, self.config.scale
        assert isinstance(base, fsrcnn.BaseNet)
        assert isinstance(refine, fsrcnn.RefineNet)
        first, activation = base.first_part
        assert isinstance(first, nn.Conv2d)
        head = from_bytes(first, self.config.value_range, _slopes(activation))
        trunk = [Stage(head, "image", "first"), *_convolutions(list(base.mid_part), "first", "out")]
        self.trunk = PairChain(trunk, ["image", "out"])
        self.to_picture = PairChain([*trunk, *_upsampler(base.last_part, "out", scale)], ["image", "out", "picture"])
        fuse = closing_pair(refine.conv1, refine.conv2)
        stages = [
            *_convolutions(list(refine.mid_part), "x", "mapped"),
            Stage(fuse[0], "mapped", "fused"),
            Stage(fuse[1], "fused", "closed", crop=0 if refine.sees_halo else 1),
            *_upsampler(refine.last_part, "closed", scale, crop=scale if refine.sees_halo else 0),
        ]
        self.refining = PairChain(stages, ["x", "picture"])

    def own_chains(self) -> Iterator[PairChain]:
        yield from (self.trunk, self.to_picture, self.refining)

    def base(
        self, area: Grid, image: Planes, feature: Planes, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        given: dict[str, Planes | torch.Tensor] = {"image": image, "out": feature}
        if picture is None:
            self.trunk(area, given)
        else:
            self.to_picture(area, {**given, "picture": picture}, gain=self.gain)

    def refine(self, area: Grid, x: Planes, pictures: Tensor, buffers: Buffers) -> None:
        self.refining(area, {"x": x, "picture": pictures}, gain=self.gain)
