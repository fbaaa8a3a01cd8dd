"""RFDN's spatial attention of patches: products of matrices against small convolutions."""

import pytest
import torch
from test_plans import MAPS, PAIRS, small_network

from mga_kernels.architectures.rfdn import cpu
from mga_kernels.runtimes.cpu.pairs import Grid


def _attention(kept, side: int, count: int = 40):
    """The first gate of a Refine-Net, and a grid of patches of random numbers."""
    weights = cpu.RfdnWeights(small_network(), kept)
    gate, grid = weights.refine_trunk.gates[0], Grid(count, (side, side))
    work = kept.planes(2 * gate.part, grid.height, grid.width)
    values = torch.randn(count, work.channels, side, side, generator=torch.Generator().manual_seed(0))
    values[:, gate.part + gate.inner :] = 0
    grid.load(work, values)
    return gate, grid, work


def _made(gate, grid, work) -> torch.Tensor:
    gate.on_patches(grid, work)
    return grid.patches(work, 0, gate.part // work.step).clone().float()


@pytest.mark.parametrize("side", [3, 4, 6, 8])
@pytest.mark.parametrize(("kept", "near"), [(MAPS, 1e-5), (PAIRS, 0.03)])
@torch.no_grad()
def test_matrices_make_what_convolutions_make(kept, near, side, monkeypatch):
    gate, grid, work = _attention(kept, side)
    by_matrices = _made(gate, grid, work)
    assert gate._matrices, "patches of this size are not small"
    monkeypatch.setattr(cpu, "DENSE", 0)
    by_convolutions = _made(gate, grid, work)
    assert by_convolutions.std() > 0.01
    assert (by_matrices - by_convolutions).abs().max() <= near * by_convolutions.std()
