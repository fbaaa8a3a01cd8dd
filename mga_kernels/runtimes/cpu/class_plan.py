"""Several whole networks of which each sub-image takes one (``networks.classes``), in convolutions of our own.

The sub-images of a class lie side by side in a grid, as patches do, and its network runs over all of them at once. What
they make is bytes, of which the means are taken where sub-images overlap: at most a level beside the definition, whose
mean alone is rounded.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...networks import ClassConfig, SRNetwork
from ...networks.classes import TOGETHER, groups
from ...networks.interface import Halves
from ...networks.layers import pad_by_reflection
from ..plan import Plan, Planner
from .choose import weights_of
from .pairs import Grid
from .plan import ACROSS, MARGIN, GridWeights
from .storage import Storage, Stored


class ClassWeights(Planner):
    """``of``: why a network has no such plan, or its plans."""

    def __init__(self, network: SRNetwork, branches: list[GridWeights]):
        self.network, self.branches = network, branches
        self.chains = [branch.of_grid() for branch in branches]

    @classmethod
    def of(cls, network: SRNetwork, kept: Storage) -> ClassWeights | str:
        branches = []
        for one in network.alternatives:
            made = _weights(one, kept)
            if isinstance(made, str):
                return made
            branches.append(made)
        return cls(copy.deepcopy(network).float(), branches)  # as exact as halves are, whatever runs tensors

    @classmethod
    def refused(cls, network: SRNetwork, kept: Storage) -> str | None:
        """Why there is no such plan of a network in a storage, or None; nothing is made."""
        found = (_kind(one, kept) for one in network.alternatives)
        return next((one for one in found if isinstance(one, str)), None)

    @property
    def description(self) -> str:
        return f"{self.branches[0].description}, by classes"

    def plan(self, height: int, width: int, capacity: int) -> ClassPlan:
        return ClassPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        with torch.device("meta"):
            plan = self.plan(height, width, capacity)
            tensors = [*plan.tensors, plan.buffer()]
        storage, grid = self.branches[0].storage, plan.grid
        rooms = storage.room_bytes(self.chains, grid.height, grid.width, images=False, side=grid.side)
        return sum(tensor.nbytes for tensor in tensors) + rooms + plan.passing_bytes


def _weights(network: SRNetwork, kept: Storage) -> GridWeights | str:
    found = _kind(network, kept)
    return found if isinstance(found, str) else found[0](found[1], kept)


def _kind(network: SRNetwork, kept: Storage) -> tuple[type[GridWeights], Halves] | str:
    """The class of a branch's weights and the halves that it takes, or why there are none; nothing is made."""
    found = weights_of(network, kept)
    if isinstance(found, str):
        return found
    kind, halves = found
    if not issubclass(kind, GridWeights):
        return f"there are none for sub-images by {network.config.network} yet"
    return kind, halves


class PlanOfClasses(Plan):
    """What such plans share: there is no Refine-Net."""

    config: ClassConfig

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.by_detail(k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        raise InputError(f"{self.config.network} with classes has no Refine-Net")

    def decomposed(self, out: Tensor) -> None:
        raise InputError(f"{self.config.network} with classes has no Refine-Net")

    def in_parts(self) -> str:
        return f"which networks of {self.config.network} parts of a frame take depends on the frame"


class ClassPlan(PlanOfClasses):
    """Memory is allocated here, once, but for sub-images and their pictures on the way."""

    def __init__(self, weights: ClassWeights, height: int, width: int, capacity: int):
        super().__init__(weights.network.config, height, width, capacity)
        self.weights = weights
        config, scale = self.config, self.config.scale
        self.places = config.sub_images(*self.padded)
        self.side = height, width = config.side(self.padded[0]), config.side(self.padded[1])
        self.grid = Grid(min(len(self.places), TOGETHER), (height + 2 * MARGIN, width + 2 * MARGIN), ACROSS)
        self.areas: dict[int, Grid] = {}
        self.image = weights.branches[0].storage.planes(4, self.grid.height, self.grid.width)
        self.total = torch.empty(*(length * scale for length in self.padded), 3)
        self.count = self._counts()
        self.tensors = [self.image.data, self.total, self.count]  # all that is allocated here

    @property
    def passing_bytes(self) -> int:
        """Of sub-images, in bytes and in float32, and of their pictures."""
        pixels = len(self.places) * self.side[0] * self.side[1]
        return 3 * pixels * (1 + 4 + self.config.scale**2)

    def _counts(self) -> Tensor:
        """How many sub-images each pixel of the result lies in, (sH, sW, 1)."""
        scale, sides = self.config.scale, []
        for axis in (0, 1):
            of_axis = torch.zeros(self.padded[axis] * scale)
            for start in sorted({place[axis] for place in self.places}):
                of_axis[start * scale : (start + self.side[axis]) * scale] += 1
            sides.append(of_axis)
        return (sides[0][:, None] * sides[1])[..., None]

    def _area(self, count: int) -> Grid:
        if count not in self.areas:
            self.areas = {count: Grid(count, self.grid.size, ACROSS, self.grid.rooms)}
        return self.areas[count]

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        """A picture, since a feature is none of what these networks have."""
        if out is None:
            return
        image = pad_by_reflection(image.permute(2, 0, 1)[None], *self.padded)[0].permute(1, 2, 0)
        (h, w), scale = self.side, self.config.scale
        given = torch.stack([image[y : y + h, x : x + w] for y, x in self.places])
        made = torch.empty(len(given), h * scale, w * scale, 3, dtype=torch.uint8)
        classes = self.weights.network.classes(given.permute(0, 3, 1, 2).float().div_(255))
        for number, chosen in groups(classes, len(self.weights.branches)):
            self._run(number, given, made, chosen)
        self._merge(made, out)

    def _run(self, number: int, given: Tensor, made: Tensor, chosen: Tensor) -> None:
        """The sub-images at ``chosen`` by a branch."""
        area = self._area(len(chosen))
        colours = F.pad(given[chosen].permute(0, 3, 1, 2), (0, 0, 0, 0, 0, 1), value=1)  # ones where there is image
        area.load(self.image, F.pad(colours, (MARGIN,) * 4))
        picture = torch.empty(len(chosen), *made.shape[1:], dtype=torch.uint8)
        slots: dict[str, Stored | Tensor] = {"image": self.image, "picture": picture}
        self.weights.chains[number](area, slots, gain=self.weights.branches[number].gain)
        made[chosen] = picture

    def _merge(self, made: Tensor, out: Tensor) -> None:
        scale, (h, w) = self.config.scale, made.shape[1:3]
        self.total.zero_()
        for (y, x), picture in zip(self.places, made, strict=True):
            self.total[y * scale : y * scale + h, x * scale : x * scale + w] += picture
        means = self.total.div_(self.count).add_(0.5)  # rounded as they become bytes
        out[: means.shape[0], : means.shape[1]].copy_(means)
