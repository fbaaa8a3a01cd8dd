"""Definition of ``select_patches`` in plain PyTorch: a stable descending sort."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
OFFSET = 0x9E3779B9


def _mix(x):
    """Scramble 32 bits held in an int or an int64 tensor; a bijection. hash.h in csrc is the same in C++.

    Both multipliers are below 2^31, so that no product reaches 2^63.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ (x >> 15)) * 0x31848BAB) & WORD
    return x ^ (x >> 16)


def cell_hash(cells: int, seed: int, device: torch.device) -> Tensor:
    """int64 (cells,): a different number in 0..2^32-1 for every cell."""
    cell = torch.arange(cells, device=device)
    return _mix(_mix((cell + OFFSET) & WORD) ^ _mix((seed + OFFSET) & WORD))


def fake(mask: Tensor, k: int, order: str, seed: int) -> Tensor:
    """The result without its values."""
    cells = mask.shape[1] * mask.shape[2]
    return mask.new_empty((mask.shape[0], torch.sym_min(k, cells)), dtype=torch.int32)


def select_patches(mask: Tensor, k: int, order: str, seed: int) -> Tensor:
    batch, rows, columns = mask.shape
    k = min(k, rows * columns)
    if order == "random":
        values = cell_hash(rows * columns, seed, mask.device).expand(batch, -1)
        ranking = values.argsort(dim=1, descending=True, stable=True)
    else:
        # float64 holds every value of the other dtypes, and negation is exact.
        values = mask.flatten(1).double() * (-1 if order == "smallest" else 1)
        missing = values.isnan()
        ranking = values.masked_fill(missing, -torch.inf).argsort(dim=1, descending=True, stable=True)
        # NaN goes behind -inf by a second stable sort.
        ranking = ranking.gather(1, missing.gather(1, ranking).int().argsort(dim=1, stable=True))
    return ranking[:, :k].sort(dim=1).values.int()
