"""Networks of one kind in several widths, of which a classifier chooses one for each sub-image (ClassSR, "-C").

ClassSR (Kong et al., CVPR 2021) is what the mask-guided paper compares itself with (its Table 2). An image is cut into
overlapping sub-images of 32x32 LR pixels. A small network sorts each into one class: what is easy to restore goes to a
narrow branch, what is hard to a wide one. Where sub-images overlap, the result is the mean of theirs, as images: each
is limited to [0, 1] first.

Sub-images start at multiples of ``step``; the last of a row or a column ends where the image ends. A side shorter than
a sub-image is not extended: sub-images are as short there. So images of every size have them, and nothing is cut off.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..quantities import plain_fields, real
from .config import Configuration, readable
from .interface import Reach, SRNetwork
from .registry import Network
from .whole import WholeConfig, WholeNetwork

SMALLEST = 4  # side of the smallest image: the classifier looks at blocks of so many pixels
TOGETHER = 64  # sub-images that a branch runs at once, which bounds memory; more of them leave the caches of a CPU


@dataclass(frozen=True)
class ClassConfig(Configuration):
    """What defines such a network apart from its weights.

    ``branches``: whole networks of RGB, of one kind and one scale, the cheapest first. ``window``: side of a sub-image
    in LR pixels. ``step``: from one sub-image to the next, so that they overlap by ``window - step``. ``shares``: of
    the sub-images of each class among images that were not trained on, by which the cost of an image that is not at
    hand is estimated.
    """

    branches: tuple[WholeConfig, ...]
    window: int = 32
    step: int = 28
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        plain_fields(self, "window", "step")
        kinds = {(branch.network, branch.scale, branch.colour) for branch in self.branches}
        if len(self.branches) < 2 or len(kinds) > 1 or self.branches[0].colour != "rgb":
            raise InputError(
                "model: the classes need two or more networks of one kind, of RGB and of one scale, got "
                f"{[(branch.network, branch.scale, branch.colour) for branch in self.branches]}"
            )
        if type(self.window) is not int or type(self.step) is not int or not SMALLEST <= self.step <= self.window:
            raise InputError(
                f"model: sub-images of {self.window!r} pixels at a step of {self.step!r} cannot be; the step is "
                f"{SMALLEST} or more and no more than the side"
            )
        count = len(self.branches)
        shares = tuple(map(real, self.shares)) or (1 / count,) * count
        if len(shares) != count or any(share is None or not 0 <= share <= 1 for share in shares):
            raise InputError(f"model: shares are {count} numbers between 0 and 1, got {self.shares!r}")
        object.__setattr__(self, "shares", shares)

    @property
    def network(self) -> str:
        return self.branches[0].network

    @property
    def scale(self) -> int:
        return self.branches[0].scale

    @property
    def definition(self) -> Network:
        network = self.branches[0].definition
        return dataclasses.replace(network, minimum_size=max(SMALLEST, network.minimum_size))

    def sub_images(self, height: int, width: int) -> list[tuple[int, int]]:
        """First row and column of each sub-image of an LR image, row by row."""
        rows, columns = (starts(side, self.window, self.step) for side in (height, width))
        return [(row, column) for row in rows for column in columns]

    def side(self, length: int) -> int:
        """Of a sub-image, along a side of an LR image of this length."""
        return min(self.window, length)

    def to_json(self) -> str:
        facts: dict[str, Any] = {"window": self.window, "step": self.step, "shares": self.shares}
        facts["branches"] = [json.loads(branch.to_json()) for branch in self.branches]
        return json.dumps(facts, sort_keys=True)

    @classmethod
    @readable()
    def from_json(cls, text: str) -> ClassConfig:
        """Inverse of ``to_json``; InputError where the text is not a configuration that this version can run."""
        values = json.loads(text)
        branches = tuple(WholeConfig.from_json(json.dumps(branch)) for branch in values.pop("branches"))
        return cls(branches, **values | {"shares": tuple(values["shares"])})


def groups(classes: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """(class, places int64 of at most TOGETHER sub-images that have it), of sub-images of classes (n), 0 to count-1."""
    for number in range(count):
        places = (classes == number).nonzero()[:, 0]
        for start in range(0, len(places), TOGETHER):
            yield number, places[start : start + TOGETHER]


def starts(length: int, window: int, step: int) -> tuple[int, ...]:
    """Where sub-images start along a side: at multiples of ``step``, but the last, which ends with the side."""
    last = max(0, length - window)
    return (*range(0, last, step), last)


class Classifier(nn.Module):
    """Sub-images (n, 3, h, w) in [0, 1], sides of 4 or more -> scores (n, classes), the largest that of the class.

    Blocks of 4x4 pixels are looked at one by one, rows and columns that fill none are not, and their mean is scored.
    With the three widths of FSRCNN it makes up the 113K parameters of FSRCNN-C in Table 2 of the paper.
    """

    def __init__(self, classes: int, channels: int = 128):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, SMALLEST, stride=SMALLEST), nn.LeakyReLU(0.1)]
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 1), nn.LeakyReLU(0.1)]
        self.blocks = nn.Sequential(*layers, nn.Conv2d(channels, 32, 1))
        self.scores = nn.Linear(32, classes)

    def forward(self, sub_images: Tensor) -> Tensor:
        return cast(Tensor, self.scores(self.blocks(sub_images).mean(dim=(2, 3))))


class ClassNetwork(SRNetwork):
    """RGB (B, 3, H, W) in [0, 1], sides of 4 or more -> (B, 3, sH, sW) in [0, 1], but for what is not finite.

    Sub-images of one class run together, TOGETHER at once. The classifier stays in float32 whatever the branches are
    in: near the border between two classes rounding would choose another picture.
    """

    config: ClassConfig
    masked, variants, input_dtype = False, ("whole",), torch.float32

    def __init__(self, config: ClassConfig):
        super().__init__()
        self.config = config
        self.branches = nn.ModuleList(map(WholeNetwork, config.branches))
        self.classifier = Classifier(len(config.branches))

    @property
    def alternatives(self) -> tuple[SRNetwork, ...]:
        return tuple(cast(SRNetwork, branch) for branch in self.branches)

    @property
    def front(self) -> nn.Module:
        return self

    @property
    def working_values(self) -> int:
        """Sub-images overlap, and the sum of theirs is kept beside the picture."""
        config = self.config
        overlap = (config.window / config.step) ** 2
        largest = max(branch.working_values for branch in self.alternatives)
        return round(overlap * (largest + 3 * (1 + config.scale**2))) + 3 * config.scale**2

    @property
    def reach(self) -> Reach:
        """A pixel depends on the sub-images around it, which are the same in a tile that starts where one does."""
        return Reach(self.config.window, 0, 0, self.config.step, False)

    @property
    def staged(self) -> Network | None:
        return self.alternatives[0].staged

    def halves(self) -> str:
        return "its networks run one by one"

    def convert(self, front: torch.dtype, back: torch.dtype) -> None:
        self.branches.to(front)

    def classes(self, sub_images: Tensor) -> Tensor:
        given = sub_images.to(next(self.classifier.parameters()).dtype)
        return torch.cat([self.classifier(part).argmax(1) for part in given.split(TOGETHER)])

    def cut(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) -> its sub-images (n B, 3, h, w), those at one place in the images together."""
        height, width = image.shape[-2:]
        h, w = (self.config.side(side) for side in (height, width))
        return torch.cat([image[..., y : y + h, x : x + w] for y, x in self.config.sub_images(height, width)])

    def merged(self, made: Tensor, height: int, width: int) -> Tensor:
        """What was made of sub-images, (n B, 3, sh, sw) -> (B, 3, sH, sW): means where they overlap."""
        places, scale = self.config.sub_images(height, width), self.config.scale
        images = len(made) // len(places)
        h, w = made.shape[-2:]
        total = made.new_zeros(images, 3, height * scale, width * scale)
        count = made.new_zeros(1, 1, height * scale, width * scale)
        for (y, x), part in zip(places, made.split(images), strict=True):
            place = ..., slice(y * scale, y * scale + h), slice(x * scale, x * scale + w)
            total[place] += part
            count[place] += 1
        return total / count

    def restored(self, sub_images: Tensor, classes: Tensor) -> Tensor:
        """Each sub-image (n, 3, h, w) by the branch of its class (n): (n, 3, sh, sw) float32 in [0, 1]."""
        scale, (height, width) = self.config.scale, sub_images.shape[-2:]
        made = sub_images.new_empty(len(sub_images), 3, height * scale, width * scale, dtype=torch.float32)
        for number, part in groups(classes, len(self.branches)):
            made[part] = self.branches[number](sub_images[part])
        return torch.where(made.isfinite(), made.clamp(0, 1), made)  # what is not finite is to be seen

    def forward(self, image: Tensor) -> Tensor:
        sub_images = self.cut(image.float())
        return self.merged(self.restored(sub_images, self.classes(sub_images)), *image.shape[-2:])

    def unclamped(self, image: Tensor, *_: object) -> Tensor:
        """``forward``, called as a mask-guided network is; there is only one variant."""
        return self(image)
