"""5x5 kernels in tiles: which layers are computed so, and how exact that is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from map_layers import Case, run
from torch import nn

from mga_kernels.architectures.fsrcnn.cpu import transposed
from mga_kernels.runtimes.cpu.filled import LARGE, TILE, tile_of
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage


def conv(outputs: int, inputs: int, size: int) -> Conv:
    return Conv(torch.randn(outputs, inputs, size, size) / (inputs * size**2) ** 0.5)


@pytest.mark.parametrize(
    ("outputs", "inputs", "size", "stride", "sides"),
    [
        (56, 3, 5, 1, (0, 4)),
        (12, 56, 5, 1, (0, 4)),
        (12, 2, 5, 1, (0, 0)),
        (4, 56, 5, 1, (0, 0)),
        (56, 56, 5, 2, (0, 0)),
        (56, 56, 3, 1, (4, 6)),
        (56, 4, 3, 1, (0, 0)),
        (56, 56, 1, 1, (0, 0)),
    ],
)
def test_layers_in_tiles(outputs, inputs, size, stride, sides):
    assert tuple(tile_of(conv(outputs, inputs, size), stride, tile) for tile in (TILE, LARGE)) == sides


def deconvolution(scale: int) -> nn.ConvTranspose2d:
    torch.manual_seed(scale)
    return nn.ConvTranspose2d(56, 3, 9, stride=scale, padding=4, output_padding=scale - 1)


@pytest.mark.parametrize("scale", [2, 3])
def test_transposed_convolutions_are_in_tiles_and_the_picture_is_the_same(scale):
    last, x = deconvolution(scale), torch.rand(56, 23, 41)
    stages = [Stage(transposed(last, scale, 4), "x", "picture", enlarge=scale)]
    planes = Map(56, 23, 41)
    planes.write(x)
    with torch.no_grad():
        expected = last.double()(x[None].double())[0].clamp(0, 1).permute(1, 2, 0)
    assert expected.std() > 0.1
    for tile, side in ((TILE, 0), (LARGE, 4)):
        chain, picture = MapChain(stages, ["x", "picture"], [tile]), torch.zeros(1, 23 * scale, 41 * scale, 3)
        assert chain.records[0].tile == side
        chain(Grid(1, (23, 41)), {"x": planes, "picture": picture})
        torch.testing.assert_close(picture[0].double(), expected, rtol=0, atol=1e-5)


def test_the_error_is_at_most_three_times_that_of_sums_one_after_the_other():
    """It is 2.6 times."""
    torch.manual_seed(0)
    case, image = Case(16, 56, 5, 4), torch.randn(56, 60, 92)
    exact, weight = case.sums(image), case.weight.flatten(1)
    sums = case.shift[:, None].repeat(1, 60 * 92)
    for i, values in enumerate(F.unfold(image[None], 5, padding=2)[0]):
        sums.addcmul_(weight[:, i : i + 1], values[None])
    errors = [float((v.double() - exact).square().mean().sqrt()) for v in (run(case, image), sums.view_as(exact))]
    assert errors[0] <= 3 * errors[1]
