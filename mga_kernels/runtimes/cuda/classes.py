"""Networks of which each sub-image takes one (``networks.classes``) in pixel maps, as one CUDA graph can hold them.

Which sub-image has which class is known on the device only. So all of them lie in one raster, each where tiles begin
and with a tile of zeros behind it, and every branch runs over the raster, in a list of the tiles of its own sub-images.
Each is computed once, by one branch, whatever the classes are; no layer sees a neighbour, since none looks farther than
the zeros go. The means of sub-images that overlap are of bytes, as in ``cpu.class_plan``, and equal to those.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...networks import ClassConfig, ClassNetwork
from ...networks.classes import SMALLEST, starts
from ...networks.layers import pad_by_reflection
from ...ops.convolve_pixels.layout import TILE, tiles_of
from ..cpu.class_plan import PlanOfClasses
from ..cpu.pairs import Grid
from ..cpu.plan import GridWeights
from ..cpu.regions import Given
from ..cpu.rows import Rows
from ..cpu.stages import part_of
from ..plan import Planner
from .regions import Listed, listed

CHANNELS = 4  # colours, and ones where there is image


class PixelClasses(Planner):
    """``branches`` in pixel maps on ``device``, where the classifier of ``network`` runs in float32."""

    def __init__(self, network: ClassNetwork, branches: Sequence[GridWeights], device: torch.device):
        self.config, self.branches = network.config, list(branches)
        self.classifier = copy.deepcopy(network.classifier).float().to(device)
        with device:
            self.chains = [branch.of_grid(margin=0) for branch in branches]

    @property
    def description(self) -> str:
        return f"{self.branches[0].description}, by classes"

    def plan(self, height: int, width: int, capacity: int) -> PixelClassPlan:
        return PixelClassPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        with torch.device("meta"):
            plan = self.plan(height, width, capacity)
            kept = sum(tensor.nbytes for tensor in [*plan.tensors, plan.buffer()])
        rooms = self.branches[0].storage.room_bytes(self.chains, plan.grid.height, plan.grid.width)
        return kept + rooms + plan.passing_bytes


class Places:
    """``down`` x ``across`` sub-images of ``size`` pixels in a raster, and the tiles that they are.

    For chains it says which tiles they run in (``regions.Lists``): those of the sub-images of class ``number``.
    """

    cell, cells = 0, None

    def __init__(self, down: int, across: int, size: tuple[int, int]):
        tiles = tiles_of(*size)
        rows, columns = (count + 1 for count in tiles)
        self.period = rows * TILE[0], columns * TILE[1]
        self.raster = down * self.period[0], across * self.period[1]
        whole = size[0] % TILE[0] == 0 and size[1] % TILE[1] == 0
        self.ends: tuple[int, ...] = () if whole else (*self.period, 0, *size)
        self.owner = torch.arange(down * across).repeat_interleave(math.prod(tiles))  # the sub-image of each tile
        first = (torch.arange(down)[:, None] * rows * across + torch.arange(across)) * columns
        inside = torch.arange(tiles[0])[:, None] * across * columns + torch.arange(tiles[1])
        self.tiles = (first.view(-1, 1) + inside.view(1, -1)).flatten().int()
        self.lists: list[Listed] = []
        self.number = 0

    def choose(self, classes: Tensor, numbers: Tensor) -> None:
        """``classes``: int64 (sub-images), of ``numbers`` (n, 1), which are 0 to n - 1."""
        mine = classes[self.owner] == numbers
        self.lists = listed(mine, self.tiles.expand(mine.shape))

    def forget(self) -> None:
        """Let go of what was made for an image."""
        self.lists = []

    def lists_of(self, rows: Rows, given: Given) -> list[Listed]:
        assert all(rows.slots[part_of(stage.x)[0]].scale == 1 for stage in rows.stages)
        return [self.lists[self.number]] * len(rows.stages)


class PixelClassPlan(PlanOfClasses):
    """Memory is allocated here, once, but for what is about the classes of an image."""

    config: ClassConfig

    def __init__(self, weights: PixelClasses, height: int, width: int, capacity: int):
        super().__init__(weights.config, height, width, capacity)
        self.weights = weights
        config, scale = self.config, self.config.scale
        self.starts = [starts(length, config.window, config.step) for length in self.padded]
        self.size = config.side(self.padded[0]), config.side(self.padded[1])
        self.places = Places(len(self.starts[0]), len(self.starts[1]), self.size)
        rows, columns = self.places.raster
        self.grid = Grid(1, (rows, columns))
        self.grid.regions = cast(Any, self.places)
        self.stored = weights.branches[0].storage.planes(CHANNELS, rows, columns)
        self.image = self.stored.data
        self.given = self.image.new_zeros(self.padded[0] + 1, self.padded[1] + 1, CHANNELS)  # zeros behind the image
        self.given[:-1, :-1, 3] = 1
        self.sources = [self._source(axis) for axis in (0, 1)]
        self.made = torch.zeros(1, rows * scale, columns * scale, 3, dtype=torch.uint8)
        self.total = torch.empty(self.padded[0] * scale, self.padded[1] * scale, 3, dtype=torch.int16)
        down, across = (self._overlaps(axis) for axis in (0, 1))
        self.count = (down[:, None] * across)[..., None]
        self.half = self.count // 2  # by which a quotient that is rounded down is rounded
        self.sums = [self._part(y, x) for y in self._apart(0) for x in self._apart(1)]
        self.numbers = torch.arange(len(weights.branches))[:, None]
        self.tensors = [self.image, self.given, self.made, self.total, self.count, self.half]

    @property
    def passing_bytes(self) -> int:
        """Of the raster on its way, of sub-images in float32, and of two layers of the classifier."""
        images, (height, width) = len(self.starts[0]) * len(self.starts[1]), self.size
        first = cast(nn.Conv2d, self.weights.classifier.blocks[0])
        layer = first.out_channels * (height // SMALLEST) * (width // SMALLEST)
        raster = CHANNELS * self.grid.height * self.grid.width * self.image.itemsize
        return raster + 4 * images * (2 * 3 * height * width + 2 * layer)

    def _source(self, axis: int) -> Tensor:
        """int64: for every row (column) of the raster the image's, or the one behind it, which holds zeros."""
        rows = torch.full((len(self.starts[axis]), self.places.period[axis]), self.padded[axis])
        rows[:, : self.size[axis]] = self._first(axis)[:, None] + torch.arange(self.size[axis])
        return rows.flatten()

    def _first(self, axis: int) -> Tensor:
        """Where sub-images start: all but the last at multiples of the step."""
        every = torch.arange(len(self.starts[axis])) * self.config.step
        return every.clamp(max=self.starts[axis][-1])

    def _overlaps(self, axis: int) -> Tensor:
        """int16: of how many sub-images each row (column) of the picture is."""
        row, first = torch.arange(self.padded[axis])[:, None], self._first(axis)
        count = ((row >= first) & (row < first + self.size[axis])).sum(dim=1)
        return count.short().repeat_interleave(self.config.scale)

    def _apart(self, axis: int) -> list[range]:
        """Sub-images along an axis in groups, in each of which none overlaps another and all are equally far apart."""
        *others, last = self.starts[axis]
        regular = len(others) + (last == len(others) * self.config.step)
        every = math.ceil(self.size[axis] / self.config.step)
        groups = [range(first, regular, every) for first in range(min(every, regular))]
        return groups if regular > len(others) else [*groups, range(len(others), len(others) + 1)]

    def _part(self, y: range, x: range) -> tuple[Tensor, Tensor]:
        """Views (down, sh, across, sw, 3) of the sums and of what was made, of some sub-images."""
        scale, (height, width) = self.config.scale, self.size
        shape = len(y), height * scale, len(x), width * scale, 3
        views = []
        for whole, periods, firsts in (
            (self.total, (self.config.step,) * 2, [self.starts[axis][one.start] for axis, one in enumerate((y, x))]),
            (self.made[0], self.places.period, [one.start * self.places.period[a] for a, one in enumerate((y, x))]),
        ):
            row, pixel, colour = whole.stride()
            down, across = (one.step * period * scale for one, period in zip((y, x), periods, strict=True))
            strides = down * row, row, across * pixel, pixel, colour
            views.append(whole.as_strided(shape, strides, scale * (firsts[0] * row + firsts[1] * pixel)))
        return views[0], views[1]

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        """A picture, since a feature is none of what these networks have."""
        if out is None:
            return
        image = pad_by_reflection(image.permute(2, 0, 1)[None], *self.padded)[0].permute(1, 2, 0)
        self.given[:-1, :-1, :3].copy_(image)
        rows, columns = self.sources
        self.image[..., :CHANNELS].copy_(self.given[rows[:, None], columns])
        classes = self.weights.classifier(self._sub_images()).argmax(1)
        self.places.choose(classes, self.numbers)
        for number, (chain, branch) in enumerate(zip(self.weights.chains, self.weights.branches, strict=True)):
            self.places.number = number
            chain(self.grid, {"image": self.stored, "picture": self.made}, gain=branch.gain)
        self._merge(out)

    def _sub_images(self) -> Tensor:
        """float32 (n, 3, h, w) in [0, 1], row by row."""
        down, across = (len(of_axis) for of_axis in self.starts)
        colours = self.image[..., :3].unflatten(0, (down, -1)).unflatten(2, (across, -1))
        inside = colours[:, : self.size[0], :, : self.size[1]]
        return inside.permute(0, 2, 4, 1, 3).float().flatten(0, 1).div_(255)

    def _merge(self, out: Tensor) -> None:
        """Means of bytes, halves upwards."""
        self.total.copy_(self.half)
        for total, made in self.sums:
            total.add_(made)
        height, width = self.total.shape[:2]
        torch.div(self.total, self.count, rounding_mode="floor", out=out[:height, :width])
