"""The plan for images larger than memory: tile after tile, with one K for the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InputError
from ...modes import ordinary
from ...networks import SRNetwork
from ...networks.layers import Place
from ...ops import paste_patches_, select_patches
from ..plan import Plan, Planner
from ..pytorch.modules import ModulePlanner
from .tiling import Cut, Tiling

PORTION = 1024  # patches that are gathered and refined at a time


def tile_planner(planner: Planner, network: SRNetwork) -> Planner:
    """What makes the plans of tiles: ``planner``, unless a tile must know its place and its plans do not look at it."""
    return ModulePlanner(network) if network.reach.takes_place and not planner.takes_place else planner


def portion(network: SRNetwork, tiling: Tiling, capacity: int) -> int:
    """Patches that the plan of a tile has room for."""
    p = network.config.patch_size
    return min(capacity, PORTION, math.ceil(tiling.height / p) * math.ceil(tiling.width / p))


class Best:
    """The ``capacity`` best cells so far, by the rules of ``select_patches``, and the slots of their patches."""

    def __init__(self, capacity: int, order: str):
        self.capacity, self.order = capacity, order
        self.values = torch.empty(0, dtype=torch.float32)
        self.cells, self.slots = (torch.empty(0, dtype=torch.int64) for _ in range(2))  # cells ascending

    def offer(self, values: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Let cells, ascending, with their mask values compete; which of them (positions) are in, and their slots."""
        count = len(self.cells)
        values, cells = torch.cat([self.values, values]), torch.cat([self.cells, cells])
        ascending = cells.argsort()
        winners = ascending[select_patches(values[ascending][None, None], self.capacity, self.order)[0].long()]
        slots = torch.cat([self.slots, torch.full_like(cells[count:], -1)])
        free = torch.ones(self.capacity, dtype=torch.bool)
        free[slots[winners[winners < count]]] = False
        entering = winners[winners >= count]
        slots[entering] = free.nonzero()[: len(entering), 0]
        self.values, self.cells, self.slots = values[winners], cells[winners], slots[winners]
        return entering - count, slots[entering]

    def find(self, cells: Tensor) -> Tensor:
        """Slots of cells (n); InputError where one of them is not among the best."""
        place = torch.searchsorted(self.cells, cells).clamp(max=max(len(self.cells) - 1, 0))
        if len(cells) and (not len(self.cells) or not torch.equal(self.cells[place], cells)):
            raise InputError(
                f"gather: of an image in tiles only the {len(self.cells)} cells with the best mask values are kept, "
                "and others were asked for; make the plan with a larger capacity"
            )
        return self.slots[place] if len(cells) else cells


class TiledPlan(Plan):
    """An image in tiles, each run by the same ``inner`` plan with enough of its surroundings.

    The coarse feature of the whole image is never kept: of each tile the patches of its cells that are among the K best
    so far are, in the slots of those that they surpass. The result is that of the whole image, where the network says
    truly how far it looks; convolutions may choose another algorithm for another size, which changes few pixels by one
    level in float32. Pictures, the mask and indices are on the CPU.
    """

    def __init__(self, planner: Planner, network: SRNetwork, height: int, width: int, capacity: int, tiling: Tiling):
        super().__init__(network.config, height, width, capacity)
        self.masked, self.reach, self.tiling = network.masked, network.reach, tiling
        self.portion = portion(network, tiling, capacity)
        self.inner = planner.plan(tiling.height, tiling.width, self.portion)
        self.pixel = self.inner.pixel
        self.tile = self.inner.buffer()
        self.mask = torch.empty(1, *self.cells, dtype=torch.float32)
        self.image: Tensor | None = None
        self.best = Best(capacity, network.config.selection)
        self.kept: Tensor | None = None  # patches, in slots
        self.taken = torch.empty(0)
        self.finite = self.inner.finite
        self.parts = f"{len(tiling)} tiles of {tiling.width}x{tiling.height}"

    def start(self) -> None:
        super().start()
        self.inner.start()
        self.finite = self.inner.finite

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        order = self.config.selection
        self.image, scores = image, self.mask
        if order == "random":  # by the cell alone, so it is known who wins
            scores = torch.zeros_like(self.mask)
            scores.view(-1)[select_patches(self.mask, self.capacity, order)[0].long()] = 1
            order = "largest"
        self.best = Best(self.capacity, order)
        for row, column in self.tiling:
            self._run_tile(image, row, column, out)
            self._compete(scores, row, column)

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.mask, select_patches(self.mask, k, self.config.selection)

    def gather(self, indices: Tensor) -> None:
        slots = self.best.find(indices[0].long().cpu())
        if self.kept is not None:
            self.taken = self.kept[slots.to(self.kept.device)]

    def patches(self) -> Tensor:
        return self.taken

    def load(self, patches: Tensor) -> None:
        self.taken = patches

    def refined(self) -> Tensor:
        side = self.config.patch_size * self.config.scale
        parts = list(self._refined_portions())
        return torch.cat(parts) if parts else torch.empty(0, 3, side, side, dtype=self.pixel)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        for some in indices.split(max(self.portion, 1), dim=1):
            self.gather(some)
            for patches in self._refined_portions():
                paste_patches_(out.permute(2, 0, 1)[None], patches, some.cpu())

    def decomposed(self, out: Tensor) -> None:
        """-D of the image of the last ``coarse``; its Base-Net runs again, tile by tile."""
        if self.reach.refine is None:
            raise InputError(
                f"-D of {self.config.network} looks at the whole image, so an image that is cut into tiles to fit into "
                "memory cannot be run this way; run -M, give more memory, or use a smaller image"
            )
        assert self.image is not None
        for row, column in self.tiling:
            self._start(self.image, row, column, None)
            self.inner.decomposed(self.tile)
            self._copy(row, column, out)

    @ordinary()
    def dense(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        self.image = image
        whole = self.buffer(out)
        self.decomposed(whole)
        return self.result(whole, out)

    def _start(self, image: Tensor, row: Cut, column: Cut, out: Tensor | None) -> None:
        """The coarse feature of a tile, and its coarse image in ``out``."""
        top, left = row.start, column.start
        if self.reach.takes_place:
            smallest = self.config.definition.minimum_size
            self.inner.place = Place(top, left, max(self.height, smallest), max(self.width, smallest))
        self.inner.show(image[top : top + self.tiling.height, left : left + self.tiling.width], out)

    def _run_tile(self, image: Tensor, row: Cut, column: Cut, out: Tensor | None) -> None:
        self._start(image, row, column, None if out is None else self.tile)
        if out is not None:
            self._copy(row, column, out)
        if not self.masked:
            return
        self.inner.free = self.free
        mask, _ = self.inner.masking(self.portion)
        (target_rows, tile_rows), (target_columns, tile_columns) = self._cells(row, column)
        self.mask[0, target_rows, target_columns] = mask[0, tile_rows, tile_columns].float().cpu()

    def _copy(self, row: Cut, column: Cut, out: Tensor) -> None:
        """What is used of the tile's picture to its place in ``out``."""
        scale = self.config.scale
        target, source = (
            tuple(slice(scale * (cut.first - start), scale * (cut.last - start)) for cut, start in starts)
            for starts in (((row, 0), (column, 0)), ((row, row.start), (column, column.start)))
        )
        out[target].copy_(self.tile[source])

    def _cells(self, row: Cut, column: Cut) -> list[tuple[slice, slice]]:
        """Rows and columns of the cells that are used of a tile: in the image, and in the tile."""
        p = self.config.patch_size
        found = []
        for cut, length, count in ((row, self.height, self.cells[0]), (column, self.width, self.cells[1])):
            first, last = cut.first // p, count if cut.last == length else cut.last // p
            found.append((slice(first, last), slice(first - cut.start // p, last - cut.start // p)))
        return found

    def _compete(self, scores: Tensor, row: Cut, column: Cut) -> None:
        """Keep the patches of those cells of the tile that are among the best so far."""
        if not self.capacity:
            return
        (rows, tile_rows), (columns, tile_columns) = self._cells(row, column)
        scores = scores[:, rows, columns]
        wide = scores.shape[2]
        local = select_patches(scores.contiguous(), self.capacity, self.best.order)[0].long()
        y, x = local // wide, local % wide
        cells = (y + rows.start) * self.cells[1] + x + columns.start
        entering, slots = self.best.offer(scores.flatten()[local], cells)
        inside = ((y + tile_rows.start) * self.inner.cells[1] + x + tile_columns.start)[entering]
        for some, where in zip(inside.split(self.portion), slots.split(self.portion), strict=True):
            self.inner.gather(some.int()[None].to(self.inner.device))
            patches = self.inner.patches()
            if self.kept is None:
                with ordinary():
                    self.kept = patches.new_empty(self.capacity, *patches.shape[1:])
            self.kept[where.to(patches.device)] = patches

    def _refined_portions(self) -> Iterator[Tensor]:
        """Refined patches on the CPU, as many at a time as the inner plan has room for."""
        for some in self.taken.split(max(self.portion, 1)) if len(self.taken) else ():
            self.inner.load(some)
            yield self.inner.refined().cpu()
