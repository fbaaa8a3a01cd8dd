"""Images larger than memory of a network that refines patches: the best K cells of all tiles, found on the way."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InputError
from ...modes import ordinary
from ...networks import SRNetwork
from ...ops import paste_patches_, select_patches
from ..plan import PatchPlan
from .tiled import TiledPlan
from .tiling import Cut, Tiling


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


class TiledPatches(TiledPlan, PatchPlan):
    """Of each tile the patches of its cells that are among the K best so far are kept, in the slots of those that they
    surpass."""

    inner: PatchPlan

    def __init__(self, inner: PatchPlan, network: SRNetwork, height: int, width: int, capacity: int, tiling: Tiling):
        super().__init__(inner, network, height, width, capacity, tiling)
        self.masked, self.portion = network.masked, inner.capacity
        self.mask = torch.empty(1, *self.cells, dtype=torch.float32)
        self.best = Best(capacity, network.config.selection)
        self.kept: Tensor | None = None  # patches, in slots
        self.taken = torch.empty(0)

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
