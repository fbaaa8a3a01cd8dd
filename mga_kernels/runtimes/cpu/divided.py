"""Published networks cut in two (``networks.divided``) in convolutions of our own.

Those whose state holds the image add it, bilinearly enlarged. To a whole image it is added where its bytes are made. To
patches it comes by a convolution of the state's image part, whose border is continued beyond the image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modes import ordinary
from ...networks.divided import GREY, IMAGE, Half
from ...networks.interface import Halves
from ...networks.layers import upsampling_steps
from ...ops.grid import mirror_indices
from .layers import Conv, Scale, beside, from_bytes, weight_and_bias
from .pairs import Grid
from .plan import Buffers, PairPlan, PairWeights
from .rescaled import repack
from .stages import Block, Part, Stage, part_of
from .storage import Chain, Storage, Stored

Halved = TypeVar("Halved", bound=Half)


class DividedWeights(PairWeights[Halved, Halved]):
    """A network's own class says of what stages its halves consist. ``state`` is the coarse feature or its patches.

    ``keeps_shallow``: the state's second part is what the first convolution makes. ``adds_image``: its last part is the
    image, to which the network adds.
    """

    only_chains = short_chains = True
    keeps_shallow = False
    adds_image = True
    slope = 1.0  # behind the first convolution

    def prepare_base(self, base: Halved) -> None:
        scale = self.config.scale
        self.steps = upsampling_steps(scale)
        width = self.config.mask_channels  # of the state's first part
        whole = self.storage.whole(width)
        self.channels = whole * (2 if self.keeps_shallow else 1) + (IMAGE if self.adds_image else 0)
        self.second = "state", whole
        self.image = "state", self.channels - IMAGE  # where there is one
        self.base_planes = {"block 0": width, "block 1": width} | ({} if self.keeps_shallow else {"shallow": width})
        self.head = self._head(base)
        self.trunk = self._trunk(self.blocks(base), ("x", whole) if self.keeps_shallow else "x")
        stages, feature = self.joined(base, "state")
        if base.light is None:
            stages += self.upsampler(base, feature)
        else:
            stages.append(Stage(self.last(base.light), feature, "picture", enlarge=scale))
        self.end = self._chain(stages, ["state", "picture"], list(self.base_planes))

    def prepare_refine(self, refine: Halved) -> None:
        self.refine_trunk = self._trunk(self.blocks(refine), "x")
        stages, feature = self.joined(refine, "x")
        self.whole_end = self._chain(stages + self.upsampler(refine, feature), ["x", "state", "picture"])
        enlarging = self.upsampler(refine, feature, margin=True)
        rest: list[Stage] = []
        if self.adds_image:
            enlarging, rest = self._with_image(enlarging, cast(nn.Conv2d, refine.conv_last))
        width = self.config.mask_channels
        planes: dict[str, int | tuple[int, int]] = {"block 0": width, "block 1": width}
        self.refine_end = self._chain(stages + enlarging, ["x", "state", "fused", "picture"])
        self.upsampling = self._chain(rest, ["fused", "picture"]) if rest else None
        if rest:
            channels = self.refine_end.channels_of("fused")
            planes |= {name: (channels, self.steps[0]) for name in ("fused", "tight")}
        self.refine_planes = planes

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        """Packed weights in bf16 have pairs of channels."""
        if not kept.narrow:
            return None
        layers = (layer for half in (halves.base, halves.refine) if half is not None for layer in half.modules())
        widths = {layer.in_channels for layer in layers if isinstance(layer, nn.Conv2d)} - {3}
        odd = [width for width in sorted(widths) if width % 2]
        return f"there are none for {odd[0]} channels, an odd number" if odd else None

    @abstractmethod
    def blocks(self, half: Halved) -> list[Block]:
        """Of each block its stages, from ``x`` to ``next``."""

    def joined(self, half: Halved, x: Part) -> tuple[list[Stage], Part]:
        """Stages from what the last block makes, ``x``, to what is upsampled, and where that is."""
        return [], x

    @abstractmethod
    def upsampler(self, half: Halved, x: Part, margin: bool = False) -> list[Stage]:
        """Stages from ``x`` to ``picture``. ``margin``: a pixel to each side of ``x`` is context only."""

    def first(self, base: Halved) -> Conv:
        """The first convolution, of an image in 0..255."""
        return from_bytes(cast(nn.Module, base.conv_first), self.value_range, self.slope)

    def last(self, conv: nn.Conv2d) -> Conv:
        """A convolution that makes colours."""
        return Conv.of(conv, floats=True)

    def _head(self, base: Halved) -> Chain:
        first = Stage(self.first(base), "image", self.second if self.keeps_shallow else "x")
        if not self.adds_image:
            return self._chain([first], ["image", "x", "state"])
        values = torch.tensor([[1 / 255] * 3 + [1], [-GREY] * 3 + [0]], dtype=torch.float32)
        part = Scale(IMAGE, factors=values[0], offsets=values[1])
        return self._chain([first, Stage(part, "image", self.image)], ["image", "x", "state"])

    def _with_image(self, stages: list[Stage], conv_last: nn.Conv2d) -> tuple[list[Stage], list[Stage]]:
        """``stages`` of the upsampler of patches, and the image beside what the last convolution reads, which adds it.

        In two lists where a margin is used up before the last convolution: the first ends in slot ``fused``, and the
        second goes on without it.
        """
        *before, last = stages
        place = str(last.x), self.storage.whole(last.layer.inputs)
        adding = Stage(_adding(conv_last, place[1]), last.x, "picture", crop=last.crop)
        if last.crop:
            inset = sum(stage.crop for stage in before)
            return [
                *before,
                Stage(_bilinear(self.steps, self.storage.narrow), self.image, place, crop=inset),
                adding,
            ], []
        used = max(number for number, stage in enumerate(stages) if stage.crop) + 1
        fused = str(stages[used - 1].out)
        channels = self.storage.whole(stages[used - 1].layer.channels)
        enlarged = Stage(_bilinear(self.steps, self.storage.narrow), self.image, (fused, channels), crop=self.steps[0])
        rest = before[used:]
        if last.x != fused:
            rest.append(Stage(_unfolded(self.steps), (fused, channels), place))
        named = {fused: "fused"}
        return _renamed([*stages[:used], enlarged], named), _renamed([*rest, adding], named)

    def _chain(self, stages: list[Stage], whole: list[str], spare: Sequence[str] = ()) -> Chain:
        """Of those that are given as a whole, with what the stages use."""
        used = {part_of(part)[0] for s in stages for part in (s.x, s.out, s.skip) if part}
        return self.chain(stages, [name for name in whole if name in used], spare)

    def _trunk(self, blocks: list[Block], first: Part) -> list[Chain]:
        """A chain for each block, from ``x`` to ``next``; what the first one reads is the part ``first``."""
        return [self.chain(stages("x" if i else first, "next"), ["x", "next"]) for i, stages in enumerate(blocks)]

    def plan(self, height: int, width: int, capacity: int) -> PairPlan:
        return DividedPlan(self, height, width, capacity)

    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        x = feature if self.keeps_shallow else buffers["shallow"]
        self.head(area, {"image": image, "x": x, "state": feature})
        _run(self.trunk, area, x, buffers, feature)
        if picture is not None:
            given: dict[str, Stored | Tensor] = {**buffers, "state": feature, "picture": picture}
            self.end(area, given, added=self._added(rgb), gain=self.gain)

    def refine(self, area: Grid, x: Stored, pictures: Tensor, buffers: Buffers) -> None:
        given: dict[str, Stored | Tensor] = {"x": _run(self.refine_trunk, area, x, buffers), "state": x}
        if self.upsampling is None:
            self.refine_end(area, {**given, "picture": pictures}, gain=self.gain)
            return
        # The gaps between patches would be enlarged as well: they are moved together.
        self.refine_end(area, {**given, "fused": buffers["fused"]})
        scale = self.steps[0]
        side = scale * self.config.patch_size
        tight = area.denser((side, side))
        repack(area, buffers["fused"], tight, buffers["tight"], scale)
        self.upsampling(tight, {"fused": buffers["tight"], "picture": pictures}, gain=self.gain)

    def whole(self, area: Grid, x: Stored, picture: Tensor, rgb: Tensor, buffers: Buffers) -> None:
        """The Refine-Net over the state of an image, ``rgb`` uint8 (H, W, 3), which is what it adds."""
        last = _run(self.refine_trunk, area, x, buffers)
        given: dict[str, Stored | Tensor] = {"x": last, "state": x, "picture": picture}
        self.whole_end(area, given, added=self._added(rgb), gain=self.gain)

    def _added(self, rgb: Tensor) -> Tensor | None:
        return rgb if self.adds_image else None


class DividedPlan(PairPlan):
    weights: DividedWeights

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        super().coarse(image, out)
        self.rgb = image
        self.repeated = self.weights.image[1] if self.weights.adds_image else -1

    def decomposed(self, out: Tensor) -> None:
        rgb = self.rgb
        if tuple(rgb.shape[:2]) != self.padded:
            rows, columns = (mirror_indices(n, m, rgb.device) for n, m in zip(rgb.shape[:2], self.padded, strict=True))
            rgb = rgb[rows][:, columns]
        feature, buffers = self.whole_feature()
        self.weights.whole(self.whole_area(feature.height, feature.width), feature, out[None], rgb, buffers)

    @ordinary()
    def whole_feature(self) -> tuple[Stored, Buffers]:
        if self._whole_feature is None:
            planes = {name: size for name, size in self.weights.refine_planes.items() if isinstance(size, int)}
            self._whole_feature = self.feature, self._buffers(planes, *self.padded)
        return self._whole_feature


def _run(trunk: list[Chain], area: Grid, x: Stored, buffers: Buffers, last: Stored | None = None) -> Stored:
    """Run the blocks, the last into ``last``; returns where the result is."""
    for i, chain in enumerate(trunk):
        to = buffers[f"block {i % 2}"] if last is None or chain is not trunk[-1] else last
        chain(area, {"x": x, "next": to})
        x = to
    return x


def _renamed(stages: list[Stage], names: dict[str, str]) -> list[Stage]:
    def of(part: Part) -> Part:
        return (names.get(part[0], part[0]), part[1]) if isinstance(part, tuple) else names.get(part, part)

    return [replace(s, x=of(s.x), out=of(s.out), skip=s.skip and of(s.skip)) for s in stages]


def _phases(scale: int) -> Tensor:
    """(s, 3): the weights of a pixel and its neighbours for each of the s pixels that it is enlarged to."""
    places = (torch.arange(scale, dtype=torch.float64)[:, None] + 0.5) / scale - 0.5
    return (1 - (places - torch.arange(-1, 2)).abs()).clamp(min=0)


def _bilinear(steps: tuple[int, ...], narrow: bool) -> Conv:
    """The state's image part enlarged by the first step. What is left of the scale is folded into channels: for each
    colour those of q x q pixels.

    In multiples of 1/256 the weights are exact in bf16, ``narrow``, and still add up to 1. For x2 and x4 they are that
    already.
    """
    first, folded = steps[0], steps[-1] if len(steps) > 1 else 1
    phases = _phases(first * folded)
    weights = torch.einsum("ay,bx->abyx", phases, phases)
    weights = (weights * 256).round() / 256 if narrow else weights
    weights = weights.unflatten(1, (first, folded)).unflatten(0, (first, folded))  # first, q, first, q, 3, 3
    weight = torch.zeros(3, folded, folded, first, first, IMAGE, 3, 3, dtype=torch.float32)
    for colour in range(3):
        weight[colour, ..., colour, :, :] = weights.permute(1, 3, 0, 2, 4, 5)
    return Conv(weight.flatten(0, 4), shuffle=first)


def _unfolded(steps: tuple[int, ...]) -> Conv:
    """What ``_bilinear`` made, unfolded: (3 q^2) channels -> 3."""
    folded = steps[-1] if len(steps) > 1 else 1
    return Conv(torch.eye(3 * folded**2, dtype=torch.float32)[:, :, None, None], shuffle=folded)


def _adding(conv: nn.Conv2d, whole: int) -> Conv:
    """The last convolution with the image beside what it reads, from channel ``whole`` on."""
    weight, bias = weight_and_bias(conv)
    image = F.pad(torch.eye(3, dtype=torch.float32)[:, :, None, None], (1, 1, 1, 1, 0, IMAGE - 3))
    assert bias is not None
    return Conv(torch.cat([beside([weight], whole), image], dim=1), bias + GREY, floats=True)
