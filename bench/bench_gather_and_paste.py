"""The selected patches out of the feature and back into the image: the operators against whole maps, on the CPU."""

import authors_way
import pytest
import torch
import workloads
from workloads import CELLS, COUNTS, HALO, HEIGHT, PATCH_SIZE, SCALE, WIDTH

from mga_kernels import ops


@pytest.mark.parametrize("case", COUNTS)
def test_gather_and_paste(race, case):
    feature = workloads._feature("cpu", torch.float32)
    planar = feature.contiguous()
    image = torch.rand(1, 3, SCALE * HEIGHT, SCALE * WIDTH, generator=torch.Generator().manual_seed(6))
    k, side = COUNTS[case], SCALE * PATCH_SIZE
    refined = torch.rand(k, 3, side, side, generator=torch.Generator().manual_seed(7))
    indices = ops.select_patches(workloads._mask("cpu"), k)
    selected = torch.zeros(1, CELLS, dtype=torch.bool).index_fill_(1, indices[0].long(), True)
    target = image.clone()

    def ours():
        return ops.gather_patches(feature, indices, PATCH_SIZE, HALO), ops.paste_patches_(target, refined, indices)

    def theirs():
        patches = authors_way.cut(planar, selected, PATCH_SIZE, HALO)
        return patches, authors_way.paste(image, refined, selected)

    for mine, other in zip(ours(), theirs(), strict=True):
        assert torch.equal(mine, other)
    assert ops.last_backend("gather_patches") == ops.last_backend("paste_patches_") == "cpu"
    gather, paste = workloads.gather_patches(case, "cpu"), workloads.paste_patches(case, "cpu")
    calls = {"operators": ours, "authors' way": theirs}
    race(f"gather and paste, {case}", calls, "operators", gather.bytes_moved + paste.bytes_moved)
