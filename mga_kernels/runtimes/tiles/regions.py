"""Images larger than memory of a network that refines regions: which cells they are is known before any tile is run."""

from __future__ import annotations

from torch import Tensor

from .tiled import TiledPlan


class TiledRegions(TiledPlan):
    """Tiles begin at whole cells, and hold all that their cells see, of regions that go on beyond them, too."""

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.image = image
        if out is None:
            return
        for row, column in self.tiling:
            self._start(image, row, column, self.tile)
            self._copy(row, column, out)

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.by_detail(k)

    def refine(self, indices: Tensor, out: Tensor) -> None:
        assert self.image is not None
        cells = self.grid_of(indices)
        p, s = self.config.patch_size, self.config.scale
        for row, column in self.tiling:
            sides = (row, self.tiling.height), (column, self.tiling.width)
            used = tuple(slice(cut.first // p, -(-cut.last // p)) for cut, _ in sides)
            if not cells[used].any():
                continue
            seen = tuple(slice(cut.start // p, -(-(cut.start + side) // p)) for cut, side in sides)
            tile, place = self.tile, tuple(slice(s * cut.start, s * (cut.start + side)) for cut, side in sides)
            before = out[place]
            tile[: before.shape[0], : before.shape[1]] = before
            self._start(self.image, row, column, None)
            self.inner.refine(cells[seen].flatten().nonzero().T.int(), tile)
            self._copy(row, column, out)
