"""Cells that benchmarks refine where no photograph says which: those of three discs."""

from __future__ import annotations

import torch

DISCS = ((0.3, 0.25), (0.55, 0.7), (0.75, 0.35))  # centres, as parts of height and width


def cells_in_discs(rows: int, columns: int, share: float) -> torch.Tensor:
    """bool (rows, columns): the nearest to one of the centres, so many of them."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    away = torch.stack([((y - cy) * rows / columns).square() + (x - cx).square() for cy, cx in DISCS]).amin(0)
    cells = torch.zeros(rows * columns, dtype=torch.bool)
    cells[away.flatten().topk(max(1, round(share * rows * columns)), largest=False).indices] = True
    return cells.view(rows, columns)
