"""The plan for a Refine-Net that another library runs (``networks.black_box``): rectangles of the image, each whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...networks import SRNetwork
from ...networks.interface import Windows
from ...system.memory import require_memory
from ..finite import is_finite
from ..plan import CELLS, Plan, Planner
from .covering import Axis, Rectangle, covering
from .modules import ModulePlanner

MOST_VALUES = 1 << 30  # numbers alive at once, of all rectangles that are run together


class WindowPlanner(Planner):
    """``base``: what runs the Base-Net, in any runtime; ``refine``: the Refine-Net, whole, in PyTorch."""

    def __init__(self, network: SRNetwork, base: Planner, refine: ModulePlanner):
        assert network.windows is not None
        self.network, self.base, self.refine, self.windows = network, base, refine, network.windows
        self.pixel, self.narrow = refine.pixel, base.narrow

    @property
    def description(self) -> str:
        return f"{self.base.description}; around the cells that are refined {self.refine.description}"

    def plan(self, height: int, width: int, capacity: int) -> WindowPlan:
        return WindowPlan(self, height, width, capacity)

    @property
    def most(self) -> int:
        """LR pixels that are run together."""
        return MOST_VALUES // self.refine.network.working_values

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        """Of -M as if not all cells were chosen."""
        columns = width if dense else min(width, -(-self.most // height))
        refine = self.refine.bytes_needed(height, columns, 0)
        return self.base.bytes_needed(height, width, 0) + refine * (capacity > 0 or dense)


class WindowPlan(Plan):
    """The image is all that is kept from one step to the next."""

    def __init__(self, planner: WindowPlanner, height: int, width: int, capacity: int):
        super().__init__(planner.network.config, height, width, capacity)
        self.planner, self.windows, self.pixel = planner, planner.windows, planner.pixel
        self.base = planner.base.plan(height, width, 0)
        self.image = torch.empty(0)
        self.finite: Tensor = torch.ones((), dtype=torch.bool, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.planner.refine.device

    def start(self) -> None:
        super().start()
        self.base.start()

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.image = image
        if out is None:
            return
        self.base.coarse(image, out)
        if self.base.finite is not None:
            self.finite.logical_and_(self.base.finite)

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.by_detail(k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        chosen = self.grid_of(indices)
        if chosen.all():  # the network's own picture, however large the image is
            needed = self.planner.refine.bytes_needed(self.height, self.width, 0)
            require_memory(needed, f"{self.config.network} over a whole image", "refine fewer cells of it")
            self.decomposed(out)
            return
        for rectangles in batched_by_size(self._rectangles(chosen), self.windows, self.planner.most):
            made = self._run(torch.stack([self.image[rectangle.part] for rectangle in rectangles]))
            for rectangle, picture in zip(rectangles, made, strict=True):
                self._paste(rectangle, picture, chosen, out)

    def _rectangles(self, chosen: Tensor) -> list[Rectangle]:
        windows, p = self.windows, self.config.patch_size
        rows, columns = (
            Axis(length, p, windows.side, windows.halo, windows.smallest) for length in (self.height, self.width)
        )
        return covering(chosen.cpu().numpy(), rows, columns, self.planner.most)

    def _run(self, images: Tensor) -> Tensor:
        """Pixels (n, h, w, 3) -> (n, sh, sw, 3) by the Refine-Net."""
        refine, scale = self.planner.refine, self.config.scale
        height, width = images.shape[1:3]
        size = max(height, self.windows.smallest), max(width, self.windows.smallest)
        made = refine.network.front(refine.given(images.to(self.device), size))
        self.finite.logical_and_(is_finite(made))
        return refine.made(made, (height * scale, width * scale))

    def _paste(self, rectangle: Rectangle, picture: Tensor, chosen: Tensor, out: Tensor) -> None:
        """The chosen cells of the rectangle, from its picture, of which there is none beyond the image."""
        side, scale = self.config.patch_size * self.config.scale, self.config.scale
        top, bottom, left, right = rectangle.cells
        cells = chosen[top:bottom, left:right].repeat_interleave(side, 0).repeat_interleave(side, 1)
        start = top * side - rectangle.pixels[0] * scale, left * side - rectangle.pixels[2] * scale
        source = picture[start[0] : start[0] + len(cells), start[1] : start[1] + cells.shape[1]]
        cells = cells[: source.shape[0], : source.shape[1], None]
        target = out[top * side : top * side + source.shape[0], left * side : left * side + source.shape[1]]
        target.copy_(torch.where(cells, source, target))

    def decomposed(self, out: Tensor) -> None:
        self.crop(out).copy_(self._run(self.image[None])[0])

    def in_parts(self) -> str:
        return CELLS.format(self.config.network)


def batched_by_size(rectangles: list[Rectangle], windows: Windows, most: int) -> list[list[Rectangle]]:
    """Those of one size together, at most ``most`` pixels of them, or each alone."""
    by_size: dict[tuple[int, int], list[Rectangle]] = {}
    for rectangle in rectangles:
        by_size.setdefault(rectangle.size, []).append(rectangle)
    groups = []
    for size, alike in by_size.items():
        count = max(1, most // math.prod(size)) if windows.together else 1
        groups += [alike[start : start + count] for start in range(0, len(alike), count)]
    return groups
