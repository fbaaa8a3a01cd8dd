"""The plan for images larger than memory: tile after tile."""

from __future__ import annotations

from torch import Tensor

from ...errors import InputError
from ...modes import ordinary
from ...networks import SRNetwork
from ...networks.layers import Place
from ..plan import Plan
from .tiling import Cut, Tiling


class TiledPlan(Plan):
    """An image in tiles, each run by the same plan (``inner``) with enough of its surroundings.

    The coarse feature of the whole image is never kept. The result is that of the whole image, where the network says
    truly how far it looks; convolutions may choose another algorithm for another size, which changes few pixels by one
    level in float32. Pictures, the mask and indices are on the CPU.
    """

    def __init__(self, inner: Plan, network: SRNetwork, height: int, width: int, capacity: int, tiling: Tiling):
        super().__init__(network.config, height, width, capacity)
        self.inner, self.reach, self.tiling = inner, network.reach, tiling
        self.pixel, self.finite = inner.pixel, inner.finite
        self.tile = inner.buffer()
        self.image: Tensor | None = None
        self.parts = f"{len(tiling)} tiles of {tiling.width}x{tiling.height}"

    def start(self) -> None:
        super().start()
        self.inner.start()
        self.finite = self.inner.finite

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

    def _copy(self, row: Cut, column: Cut, out: Tensor) -> None:
        """What is used of the tile's picture to its place in ``out``."""
        scale = self.config.scale
        target, source = (
            tuple(slice(scale * (cut.first - start), scale * (cut.last - start)) for cut, start in starts)
            for starts in (((row, 0), (column, 0)), ((row, row.start), (column, column.start)))
        )
        out[target].copy_(self.tile[source])
