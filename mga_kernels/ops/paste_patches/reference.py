"""Definition of ``paste_patches_`` in plain PyTorch; differentiable, any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..grid import check_inside


def paste_patches_(image: Tensor, patches: Tensor, indices: Tensor) -> Tensor:
    side = patches.shape[-1]
    batch, rows, columns = image.shape[0], image.shape[2] // side, image.shape[3] // side
    count = indices.shape[1]
    check_inside("paste_patches_", indices, rows, columns)
    if indices.numel() == 0:
        return image
    # For every cell the last patch that names it, or -1; indices outside the grid share one slot that is dropped.
    inside = (indices >= 0) & (indices < rows * columns)
    slot = torch.where(inside, indices, rows * columns).long()
    turn = torch.arange(count, device=image.device).expand(batch, count)
    none = torch.full((batch, rows * columns + 1), -1, device=image.device)
    writer = none.scatter_reduce(1, slot, turn, "amax")[:, :-1].reshape(batch, rows, columns)

    of_image = torch.arange(batch, device=image.device)[:, None, None]
    candidates = patches.unflatten(0, (batch, count))[of_image, writer.clamp(min=0)]  # (B, rows, columns, C, q, q)
    cells = image.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5)  # a view
    cells.copy_(torch.where((writer >= 0)[..., None, None, None], candidates, cells))
    return image
