"""Images of a few pixels are upscaled with their reflection around them, which is cut off again.

To a convolution zeros lie beyond the border of an image, so next to it networks shift colours; of an image with a side
of 1 to 3 pixels nothing else is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SIDE = 4  # LR pixels; a shorter side gets a border
WIDTH = 8  # LR pixels of it, at least


def border_width(cell: int) -> int:
    """LR pixels that a short side gets at both ends: whole cells of this side."""
    return -(-WIDTH // cell) * cell


class Border(NamedTuple):
    """LR pixels put on each side of the rows (``y``) and of the columns (``x``) of an image; whole cells."""

    y: int
    x: int

    @classmethod
    def around(cls, image: Tensor, rows: int, columns: int, cell: int) -> tuple[Border, Tensor]:
        """The border that an image with cells of this side gets, and the image with it.

        ``rows`` and ``columns`` are the dimensions of those.
        """
        border = cls(*(border_width(cell) if image.shape[dim] < SIDE else 0 for dim in (rows, columns)))
        for dim, width in ((rows, border.y), (columns, border.x)):
            if width:
                mirrored = np.pad(np.arange(image.shape[dim]), width, mode="symmetric")
                image = image.index_select(dim, torch.from_numpy(mirrored).to(image.device))
        return border, image

    def cut(self, image: Tensor, rows: int, columns: int, scale: int, out: Tensor | None = None) -> Tensor:
        """The SR image of what ``around`` returned without the border, in ``out`` where there is one."""
        for dim, border in ((rows, self.y), (columns, self.x)):
            if border:
                image = image.narrow(dim, border * scale, image.shape[dim] - 2 * border * scale)
        if not any(self):
            return image
        return image.contiguous() if out is None else out.copy_(image)

    def own_cells(self, mask: np.ndarray, indices: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a mask (Hp, Wp) and of indices of its cells what lies within the border, counted from there."""
        if not any(self):
            return mask, indices
        top, left = self.y // cell, self.x // cell
        within = mask[top : len(mask) - top, left : mask.shape[1] - left]
        rows, columns = np.divmod(indices, mask.shape[1])
        rows, columns = rows - top, columns - left
        own = (rows >= 0) & (rows < within.shape[0]) & (columns >= 0) & (columns < within.shape[1])
        return within, (rows * within.shape[1] + columns)[own].astype(indices.dtype)
