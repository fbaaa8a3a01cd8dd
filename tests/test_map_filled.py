"""Patches that tiles fill: where they lie, what is computed of them, and that nothing between them is touched."""

import pytest
import torch
import torch.nn.functional as F
from map_layers import Case, map_of, poisoned
from torch import nn

from mga_kernels import ops
from mga_kernels.ops.convolution.map_layout import read
from mga_kernels.records import FrameRecord, MapRecord
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid, lanes
from mga_kernels.runtimes.cpu.stages import Stage

ERROR = {(3, 4): 1.5e-5, (3, 6): 1.5e-4, (5, 4): 1.5e-4}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def inside(length: int, patch: int, step: int, inset: int) -> torch.Tensor:
    place = torch.arange(length) - inset
    return (place >= 0) & (place % step < patch)


@pytest.mark.parametrize("kept", ["all", "some"])
@pytest.mark.parametrize(
    ("size", "tile", "patch", "step", "inset"),
    [
        (3, 4, 4, 5, 0),
        (3, 4, 4, 7, 1),
        (3, 4, 8, 10, 0),
        (3, 4, 4, 9, 3),
        (3, 4, 12, 13, 0),
        (3, 6, 6, 7, 0),
        (3, 6, 6, 12, 2),
        (3, 6, 12, 14, 1),
        (5, 4, 4, 6, 1),
        (5, 4, 8, 11, 0),
    ],
)
def test_only_what_fills_patches_is_computed(size, tile, patch, step, inset, kept):
    """By the definition over all of the image; a row of it has more tiles than a task."""
    across, down = 60, 3
    height, width = (inset + (count - 1) * step + patch for count in (down, across))
    case = Case(24, 10, size, tile, slope=0.2, factors=(0.5, 1.0))
    image, skip, out = torch.randn(10, height, width), torch.randn(24, height, width), poisoned(24, height, width)
    infinite = inset + step, inset + 2 * step  # of one patch, whose tile is then computed plainly
    image[3, infinite[0], infinite[1]] = float("inf")
    columns = torch.ones(width, dtype=torch.bool)
    columns[inset + step] = kept == "all"
    mask = lanes(columns), torch.ones(height, dtype=torch.uint8)
    record = case.record(skip=2, patch=patch, step=step, inset=inset)
    maps = [MapRecord(), MapRecord(mask=0), MapRecord()]
    given = [map_of(image), out, map_of(skip)], maps, [mask], [case.packed], [case.epilogue], [record], []
    ops.convolve_maps_(*given, FrameRecord(height, width))
    found, expected = read(out, height, width, 0, 24), case.expected(image, skip) * columns
    wanted = inside(height, patch, step, inset)[:, None] & inside(width, patch, step, inset)
    finite = wanted & expected.isfinite().all(dim=0)
    assert 0 < (wanted & ~finite).sum() <= size**2
    torch.testing.assert_close(found[:, finite].double(), expected[:, finite], rtol=1e-5, atol=ERROR[size, tile])
    assert found[:, ~wanted].isnan().all()


def layers(halo: int) -> tuple[list[nn.Conv2d], list[Stage]]:
    """Such as a Refine-Net has: one that uses up a halo, an enlargement, and few channels at the end."""
    convs = [nn.Conv2d(12, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1 - halo)]
    convs += [nn.Conv2d(20, 64, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)]
    stages = [
        Stage(Conv.of(convs[0], 0.2), "x", "a"),
        Stage(Conv.of(convs[1]), "a", "b", crop=halo),
        Stage(Conv.of(convs[2], 0.0, shuffle=2), "b", "c"),
        Stage(Conv.of(convs[3], floats=True), "c", "picture"),
    ]
    return convs, stages


@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("side", [4, 5, 6, 8, 12])
@pytest.mark.parametrize("tile", [4, 6])
def test_patches_are_what_each_is_by_itself(tile, side, halo):
    count = 37
    convs, stages = layers(halo)
    chain, grid = MapChain(stages, ["x", "picture"], [tile] * len(stages)), Grid(count, (side, side), 8)
    x = torch.randn(count, 12, side, side)
    planes = Map(12, grid.height, grid.width)
    grid.load(planes, x)
    shown = 2 * (side - 2 * halo)
    pictures = torch.zeros(count, shown, shown, 3)
    for _ in range(2):  # what the first has left where nothing is computed
        chain(grid, {"x": planes, "picture": pictures}, gain=0.4)
    with torch.no_grad():
        values = convs[1](F.leaky_relu(convs[0](x), 0.2))
        values = convs[3](F.relu(F.pixel_shuffle(convs[2](values), 2)))
    expected = (0.4 * values).clamp(0, 1).permute(0, 2, 3, 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(pictures, expected, rtol=0, atol=2e-5)


def tiles_of(tile: int, side: int, halo: int) -> list[int]:
    stages = layers(halo)[1]
    chain = MapChain(stages, ["x", "picture"], [tile] * len(stages)).of_patches(side)
    return [one.tile if one else 0 for one in chain.filled]


def test_patches_are_filled_where_that_is_less_work():
    assert tiles_of(6, 6, 1) == [6, 4, 4, 0]
    assert tiles_of(6, 6, 0) == [6, 6, 6, 0]
    assert tiles_of(4, 6, 1) == [0, 4, 4, 0]
    assert tiles_of(6, 4, 0) == [4, 4, 4, 0]
    assert tiles_of(6, 32, 0) == [0, 0, 0, 0]  # of larger tiles that do not fill them there are fewer products
    assert tiles_of(4, 32, 0) == [4, 4, 4, 0]
    assert tiles_of(4, 5, 0) == tiles_of(6, 5, 0) == [0, 0, 0, 0]


def test_rooms_that_have_lost_a_border_are_no_others():
    """What lies beside them must stay zero, which those without a loss would write to."""
    conv = Conv(torch.randn(8, 8, 3, 3))
    stages = [Stage(conv, x, out, crop=out == "c") for x, out in (("x", "a"), ("a", "b"), ("b", "c"), ("c", "out"))]
    rooms = MapChain(stages, ["x", "out"]).of_patches(6).rows.shared
    assert rooms["c"].inset == 1
    assert rooms["c"] not in (rooms["a"], rooms["b"])
