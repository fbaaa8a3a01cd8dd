"""FSRCNN in convolutions of our own: each half is one chain, from image or patches to feature and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...networks.config import SCALES
from ...networks.interface import Halves
from ...runtimes.cpu.layers import Conv, from_bytes, slope_of, weight_and_bias
from ...runtimes.cpu.pairs import Grid
from ...runtimes.cpu.plan import MARGIN, Buffers, GridWeights
from ...runtimes.cpu.stages import Stage
from ...runtimes.cpu.storage import Chain, Storage, Stored
from . import network as fsrcnn


def _convolutions(layers: Sequence[nn.Module], x: str, out: str) -> list[Stage]:
    """Convolutions, each with its PReLU, from slot ``x`` to slot ``out``."""
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    slots = [x, *(f"{out} {i}" for i in range(1, len(pairs))), out]
    return [
        Stage(Conv(*weight_and_bias(conv), slope_of(activation)), slots[i], slots[i + 1])
        for i, (conv, activation) in enumerate(pairs)
    ]


def transposed(conv: nn.ConvTranspose2d, scale: int, padding: int) -> Conv:
    """A 9x9 transposed convolution of stride ``scale`` as a convolution to 3 scale^2 channels and a pixel shuffle.

    Phase d of its output meets input pixel i with tap d + padding - scale * i, so that x4 needs a neighbour to each
    side and the smaller scales two.
    """
    reach = max((scale - 1 + padding) // scale, (8 - padding) // scale)
    size = 2 * reach + 1
    weight = conv.weight.new_zeros(3, scale, scale, conv.in_channels, size, size)
    places = [
        (phase, i + reach, phase + padding - scale * i)
        for phase in range(scale)
        for i in range(-reach, reach + 1)
        if 0 <= phase + padding - scale * i < 9
    ]
    for dy, row, ky in places:
        for dx, column, kx in places:
            weight[:, dy, dx, :, row, column] = conv.weight[:, :, ky, kx].T
    assert conv.bias is not None
    return Conv(weight.flatten(0, 2), conv.bias.repeat_interleave(scale**2))


def _upsampler(last_part: nn.Sequential, x: str, scale: int, crop: int = 0) -> list[Stage]:
    expand, activation, deconvolve = last_part
    assert isinstance(deconvolve, nn.ConvTranspose2d)
    last = transposed(deconvolve, scale, int(deconvolve.padding[0]) - crop)
    return [
        *_convolutions([expand, activation], x, "expanded"),
        Stage(last, "expanded", "picture", crop=crop, enlarge=scale),
    ]


class FsrcnnWeights(GridWeights[fsrcnn.BaseNet, fsrcnn.RefineNet]):
    faster = "float32"  # a third slower than bfloat16, which moves flat colours by up to 3 levels of 255
    any_settings = True

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        scale = halves.config.scale
        return None if scale in SCALES else f"there are none for x{scale}"

    def prepare_base(self, base: fsrcnn.BaseNet) -> None:
        (first, activation), expand = base.first_part, base.last_part[0]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(expand, nn.Conv2d)
        self.channels = expand.in_channels
        head = from_bytes(first, self.value_range, slope_of(activation))
        trunk = [Stage(head, "image", "first"), *_convolutions(list(base.mid_part), "first", "out")]
        self.trunk = self.chain(trunk, ["image", "out"])
        self.stages = [*trunk, *_upsampler(base.last_part, "out", self.config.scale)]
        self.to_picture = self.chain(self.stages, ["image", "out", "picture"])

    def of_grid(self, margin: int = MARGIN) -> Chain:
        first, *others = self.stages
        return self.storage.chain([replace(first, crop=margin), *others], ["image", "picture"])

    def prepare_refine(self, refine: fsrcnn.RefineNet) -> None:
        scale = self.config.scale
        fuse = self.closing_pair(refine.conv1, refine.conv2)
        stages = [
            *_convolutions(list(refine.mid_part), "x", "mapped"),
            Stage(fuse[0], "mapped", "fused"),
            Stage(fuse[1], "fused", "closed", crop=0 if refine.sees_halo else 1),
            *_upsampler(refine.last_part, "closed", scale, crop=scale if refine.sees_halo else 0),
        ]
        self.refining = self.chain(stages, ["x", "picture"])

    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        given: dict[str, Stored | torch.Tensor] = {"image": image, "out": feature}
        if picture is None:
            self.trunk(area, given)
        else:
            self.to_picture(area, {**given, "picture": picture}, gain=self.gain)

    def refine(self, area: Grid, x: Stored, pictures: Tensor, buffers: Buffers) -> None:
        self.refining(area, {"x": x, "picture": pictures}, gain=self.gain)
