"""From the coarse feature to the selected patches: the operators against whole maps (``authors_way``), on the CPU."""

import authors_way
import pytest
import torch
import workloads
from workloads import CHANNELS, HALO, HEIGHT, PATCH_SIZE, ROWS, WIDTH

from mga_kernels import ops

K = 1000


def weights(generator):
    shapes = ((CHANNELS, CHANNELS, 3, 3), (CHANNELS,), (2, CHANNELS, 3, 3), (2,), (25, 1, 1, 1))
    return [torch.randn(shape, generator=generator).div(20) for shape in shapes]


def same_selection(mask, other, indices, selected):
    """Rounding may exchange cells of nearly the same mask value, and nothing else."""
    torch.testing.assert_close(mask, other, atol=1e-5, rtol=1e-4)
    differing = set(indices[0].tolist()) ^ set(selected[0].nonzero()[:, 0].tolist())
    threshold = mask.flatten().topk(K).values[-1]
    assert all(abs(mask.flatten()[cell] - threshold) < 1e-4 for cell in differing)


@pytest.mark.parametrize("part", ["indices", "patches"])
def test_mask_branch(race, part):
    feature = workloads._feature("cpu", torch.float32)
    planar = feature.contiguous()
    *head, filters = weights(torch.Generator().manual_seed(4))
    no_bias = torch.zeros(25)

    def ours():
        probability = ops.mask_head(feature, *head, PATCH_SIZE, "softmax-then-pool")
        mask, indices = ops.filter_and_select(probability, probability[:, None], filters, no_bias, K)
        return (mask, indices, *([ops.gather_patches(feature, indices, PATCH_SIZE, HALO)] if part == "patches" else []))

    def theirs(feature):
        mask = authors_way.predict_mask(feature, *head, filters, PATCH_SIZE)
        selected = authors_way.select(mask, K)
        if part == "indices":
            return mask, selected, selected.nonzero()
        return mask, selected, authors_way.cut(feature, selected, PATCH_SIZE, HALO)

    mask, indices, *_ = ours()
    assert ops.last_backend("mask_head") == ops.last_backend("filter_and_select") == "cpu"
    for layout in (feature, planar):
        other, selected, _ = theirs(layout)
        same_selection(mask, other, indices, selected)
    calls = {
        "operators": ours,
        "authors' way": lambda: theirs(planar),
        "authors' way, channels-last": lambda: theirs(feature),
    }
    read = feature.nbytes + sum(tensor.nbytes for tensor in head)
    written = ROWS * (WIDTH // PATCH_SIZE) * 4 * 2 + K * 4 + (part == "patches") * K * CHANNELS * 36 * 4
    operations = 2 * 9 * HEIGHT * WIDTH * CHANNELS * (CHANNELS + 2)
    race(f"mask branch, to the {part}", calls, "operators", read + written, operations)
