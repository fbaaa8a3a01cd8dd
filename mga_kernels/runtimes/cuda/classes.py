"""Networks of which each sub-image takes one (``networks.classes``) in pixel maps, as one CUDA graph can hold them.

Which sub-image has which class is known on the device only. So all of them lie in one raster, each where tiles begin
and with a tile of zeros behind it, and every branch runs over the raster, in lists of the tiles of its own sub-images.
Each is computed once, by one branch, whatever the classes are; no layer sees a neighbour, since none looks farther than
the zeros go. The means of sub-images that overlap are of bytes, as in ``cpu.class_plan``, and equal to those.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...networks import ClassConfig, ClassNetwork
from ...networks.classes import SMALLEST, starts
from ...networks.layers import pad_by_reflection
from ...ops.convolve_pixels.layout import TILE, tiles_of
from ..cpu.class_plan import PlanOfClasses
from ..cpu.pairs import Grid
from ..cpu.plan import GridWeights, PairWeights
from ..cpu.regions import Given
from ..cpu.rows import Rows
from ..cpu.stages import part_of
from ..cpu.storage import Chain, Stored
from ..plan import Planner
from .pixels import PixelChain
from .regions import Listed, listed

CHANNELS = 4  # colours, and ones where there is image
FEATURE = "coarse feature"  # beside the planes that branches have names for


class PixelClasses(Planner):
    """``branches`` in pixel maps on ``device``, where the classifier of ``network`` runs in float32.

    A branch that runs over grids of small images is one chain. To others the raster is an image.
    """

    def __init__(self, network: ClassNetwork, branches: Sequence[PairWeights], device: torch.device):
        self.config, self.branches = network.config, list(branches)
        self.classifier = copy.deepcopy(network.classifier).float().to(device)
        with device:
            self.of_grid = [one.of_grid(margin=0) if isinstance(one, GridWeights) else None for one in branches]
        self.chains: list[Chain] = []  # all that run
        for one, chain in zip(branches, self.of_grid, strict=True):
            self.chains += one.chains if chain is None else [chain]

    @staticmethod
    def against(branch: object) -> str | None:
        """Why these weights of a whole network cannot be those of a branch, or None."""
        if isinstance(branch, GridWeights):
            return None
        assert isinstance(branch, PairWeights)
        name = branch.config.network
        if not branch.only_chains:
            return f"{name} has steps between its convolutions that need a whole sub-image"
        if branch.unshuffled > 1:
            return f"{name} turns blocks of {branch.unshuffled}x{branch.unshuffled} pixels into channels first"
        return None

    @property
    def description(self) -> str:
        return f"{self.branches[0].description}, by classes"

    @property
    def scales(self) -> set[int]:
        """Of the maps that layers read."""
        rows = [cast(PixelChain, chain).rows for chain in self.chains]
        return {each.slots[part_of(stage.x)[0]].scale for each in rows for stage in each.stages}

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

    For chains it says which tiles they run in (``regions.Lists``): those of the sub-images of class ``number``, in maps
    of any of the ``scales``.
    """

    cell, cells = 0, None

    def __init__(self, down: int, across: int, size: tuple[int, int], scales: Iterable[int] = (1,)):
        tiles = tiles_of(*size)
        rows, columns = (count + 1 for count in tiles)
        self.period = rows * TILE[0], columns * TILE[1]
        self.size, self.raster = size, (down * self.period[0], across * self.period[1])
        whole = size[0] % TILE[0] == 0 and size[1] % TILE[1] == 0
        self.ends: tuple[int, ...] = () if whole else (*self.period, 0, *size)
        self.tiles = {scale: self._tiles(down, across, scale, tiles_of(*(scale * n for n in size))) for scale in scales}
        self.lists: dict[int, list[Listed]] = {}  # by scale, of each class
        self.number = 0

    def _tiles(self, down: int, across: int, scale: int, tiles: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Of maps that are enlarged: the sub-image of each tile of any, int64, and the numbers of these, int32."""
        rows, columns = (scale * period // side for period, side in zip(self.period, TILE, strict=True))
        owner = torch.arange(down * across).repeat_interleave(math.prod(tiles))
        first = (torch.arange(down)[:, None] * rows * across + torch.arange(across)) * columns
        inside = torch.arange(tiles[0])[:, None] * across * columns + torch.arange(tiles[1])
        return owner, (first.view(-1, 1) + inside.view(1, -1)).flatten().int()

    def choose(self, classes: Tensor, numbers: Tensor) -> None:
        """``classes``: int64 (sub-images), of ``numbers`` (n, 1), which are 0 to n - 1."""
        for scale, (owner, tiles) in self.tiles.items():
            mine = classes[owner] == numbers
            self.lists[scale] = listed(mine, tiles.expand(mine.shape))

    def forget(self) -> None:
        """Let go of what was made for an image."""
        self.lists = {}

    def lists_of(self, rows: Rows, given: Given) -> list[Listed]:
        return [self.lists[rows.slots[part_of(stage.x)[0]].scale][self.number] for stage in rows.stages]


class PixelClassPlan(PlanOfClasses):
    """Memory is allocated here, once, but for what is about the classes of an image."""

    config: ClassConfig

    def __init__(self, weights: PixelClasses, height: int, width: int, capacity: int):
        super().__init__(weights.config, height, width, capacity)
        self.weights = weights
        config, scale = self.config, self.config.scale
        self.starts = [starts(length, config.window, config.step) for length in self.padded]
        self.size = config.side(self.padded[0]), config.side(self.padded[1])
        self.places = Places(len(self.starts[0]), len(self.starts[1]), self.size, weights.scales)
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
        self.planes: dict[tuple[str, int, int], Stored] = {}  # by name, channels and scale: branches may share them
        self.buffers = [
            {name: self._plane(name, size) for name, size in {**one.base_planes, FEATURE: one.channels}.items()}
            if chain is None
            else {}
            for one, chain in zip(weights.branches, weights.of_grid, strict=True)
        ]
        self.around = [self._around(axis) for axis in (0, 1)] if any(one.adds_image for one in weights.branches) else []

    @property
    def passing_bytes(self) -> int:
        """Of the raster and its bytes on their way, of sub-images in float32, and of two layers of the classifier."""
        images, (height, width) = len(self.starts[0]) * len(self.starts[1]), self.size
        first = cast(nn.Conv2d, self.weights.classifier.blocks[0])
        layer = first.out_channels * (height // SMALLEST) * (width // SMALLEST)
        of_pixel = CHANNELS * self.image.itemsize + (3 if self.around else 0)
        return of_pixel * self.grid.height * self.grid.width + 4 * images * (2 * 3 * height * width + 2 * layer)

    def _source(self, axis: int) -> Tensor:
        """int64: for every row (column) of the raster the image's, or the one behind it, which holds zeros."""
        rows = torch.full((len(self.starts[axis]), self.places.period[axis]), self.padded[axis])
        rows[:, : self.size[axis]] = self._first(axis)[:, None] + torch.arange(self.size[axis])
        return rows.flatten()

    def _around(self, axis: int) -> Tensor:
        """The same without zeros: sub-images go on as their borders are, since enlarging looks a pixel beyond."""
        size, period, step = self.size[axis], self.places.period[axis], torch.arange(self.places.period[axis])
        first, local = self._first(axis), step.clamp(max=size - 1)
        rows = first[:, None] + local
        rows[:-1, period - 1] = first[1:]
        return rows.flatten()

    def _plane(self, name: str, size: int | tuple[int, int]) -> Stored:
        channels, scale = (size, 1) if isinstance(size, int) else size
        key = name, channels, scale
        if key not in self.planes:
            storage, (rows, columns) = self.weights.branches[0].storage, self.places.raster
            self.planes[key] = storage.planes(channels, scale * rows, scale * columns)
            self.tensors.append(self.planes[key].data)
        return self.planes[key]

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
        rows, columns = self.around or self.sources
        rgb = image[rows[:, None], columns] if self.around else image
        for number in range(len(self.weights.branches)):
            self.places.number = number
            self._run(number, rgb)
        self._merge(out)

    def _run(self, number: int, rgb: Tensor) -> None:
        """A branch, over its sub-images; ``rgb``: uint8 (rows of the raster, columns, 3), where that is added."""
        branch, chain = self.weights.branches[number], self.weights.of_grid[number]
        if chain is not None:
            chain(self.grid, {"image": self.stored, "picture": self.made}, gain=branch.gain)
            return
        buffers = dict(self.buffers[number])
        feature = buffers.pop(FEATURE)
        branch.base(self.grid, self.stored, feature, self.made, rgb, buffers)

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
