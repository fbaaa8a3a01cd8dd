"""Patches side by side in float maps: their values, and the tiles that are computed for them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mga_kernels.errors import InputError
from mga_kernels.ops import map_gather_, map_grid_scale_, map_grid_statistics, map_interpolate_
from mga_kernels.ops.convolution.map_layout import empty_map
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage


def grid_of(count, side, across, channels):
    """A grid with random patches (count, C, side, side), and the map that they are in."""
    grid = Grid(count, (side, side), across)
    planes = Map(channels, grid.height, grid.width)
    patches = torch.randn(count, channels, side, side)
    grid.load(planes, patches)
    return grid, planes, patches


def patches_of(grid, planes):
    """(count, C, side, side) of what the map holds."""
    values = grid.patches(planes, 0, planes.groups).flatten(2, 3).flatten(0, 1)
    return values[: grid.count, : planes.channels]


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize(("count", "side", "across", "channels"), [(5, 6, 2, 20), (1, 3, 4, 8), (40, 4, 32, 64)])
def test_values_of_their_own_for_each_patch(count, side, across, channels, skipped):
    grid, x, patches = grid_of(count, side, across, channels)
    sums = x.statistics(grid)
    torch.testing.assert_close(sums[0], patches.sum((2, 3)), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums[1], patches.square().sum((2, 3)), rtol=1e-5, atol=1e-4)
    factors, offsets = torch.randn(2, count, channels).unbind()
    _, skip, added = grid_of(count, side, across, channels)
    expected = patches * factors[..., None, None] + offsets[..., None, None] + (added if skipped else 0)
    for out in (Map(channels, grid.height, grid.width), x):  # what it reads may be what it writes over
        out.rescale(grid, x, factors, offsets, skip if skipped else None, 0.2)
        torch.testing.assert_close(patches_of(grid, out), F.leaky_relu(expected, 0.2), rtol=1e-6, atol=1e-5)
    grid.patches(x, 0, x.groups).zero_()
    assert not x.inner().any()  # nothing was written between them


@pytest.mark.parametrize("repeated", [-1, 0, 1])
def test_cells_at_the_border_of_an_image_see_zeros_or_the_nearest_pixels(repeated):
    p, halo, rows, columns = 4, 3, 2, 3
    image = Map(12, rows * p, columns * p)
    values = torch.randn(12, rows * p, columns * p)
    image.write(values)
    cells = torch.tensor([[0, 2, 3, 5]], dtype=torch.int32)
    grid = Grid(4, (p + 2 * halo,) * 2, 3)
    out = Map(12, grid.height, grid.width)
    out.inner().fill_(float("nan"))
    map_gather_(out.data, image.data, 2, rows * p, columns * p, cells, p, halo, 3, repeated)
    zeros, nearest = F.pad(values, (halo,) * 4), F.pad(values[None], (halo,) * 4, mode="replicate")[0]
    whole = zeros if repeated < 0 else torch.cat([zeros[: 8 * repeated], nearest[8 * repeated :]])
    for index, patch in zip(cells[0].tolist(), patches_of(grid, out), strict=True):
        top, left = index // columns * p, index % columns * p
        side = p + 2 * halo
        assert torch.equal(patch, whole[:, top : top + side, left : left + side])
    assert not grid.patches(out, 0, 2)[1, 1:].any()  # where there is no patch


def test_wrong_calls_are_refused():
    grid, x = Grid(5, (6, 6), 2), empty_map(16, 20, 13)
    factors = torch.zeros(5, 16)
    with pytest.raises(InputError, match=r"map_grid_statistics: x must be a map, .* 3 groups of 20x13"):
        map_grid_statistics(x, 3, grid.count, 6, 6, 2)
    with pytest.raises(InputError, match="out must be a map"):
        map_grid_scale_(x[:19], x, None, factors, factors, 6, 6, 2)
    with pytest.raises(InputError, match="skip must be a map"):
        map_grid_scale_(x, x, x.double(), factors, factors, 6, 6, 2)
    with pytest.raises(InputError, match=r"offsets must be float32 \(count, a multiple of 8\)"):
        map_grid_scale_(x, x, None, factors, torch.zeros(5, 15), 6, 6, 2)
    cells = torch.tensor([[0, 6]], dtype=torch.int32)
    with pytest.raises(InputError, match="index 6 is outside the 2x3 grid"):
        map_gather_(x, empty_map(16, 8, 12), 2, 8, 12, cells, 4, 1, 2)
    with pytest.raises(InputError, match="out must be a map"):
        map_gather_(x, empty_map(16, 8, 12), 2, 8, 12, cells.repeat(1, 8).clamp(max=5), 4, 1, 2)


@pytest.mark.parametrize("inset", [0, 1, 4])
@pytest.mark.parametrize(("side", "scale", "tile"), [(6, 1, 6), (4, 4, 4), (4, 8, 4), (8, 4, 6), (5, 3, 4)])
def test_tiles_are_those_that_patches_lie_in(side, scale, tile, inset):
    if 2 * inset >= side * scale:
        inset = 2
    grid = Grid(7, (side, side), 4)
    inside = torch.zeros(scale * (grid.height + 1), scale * (grid.width + 1), dtype=torch.bool)
    step = scale * (side + 1)
    for i in range(8):  # also where the last row has no patch, so that what is there is always the same
        top, left = i // 4 * step, i % 4 * step
        inner = slice(inset, scale * side - inset)
        inside[top:, left:][inner, inner] = True
    inside = inside[: scale * grid.height, : scale * grid.width]
    height, width = (-(-length // tile) for length in inside.shape)
    inside = F.pad(inside, (0, width * tile - inside.shape[1], 0, height * tile - inside.shape[0]))
    met = inside.unflatten(1, (width, tile)).unflatten(0, (height, tile)).any(dim=3).any(dim=1)
    if met.all():
        assert grid.tiles(tile, scale, inset) is None
    else:
        assert torch.equal(grid.tiles(tile, scale, inset), met.flatten().nonzero()[:, 0].int())
    assert Grid(1, (9, 9)).tiles(tile, scale, 0) is None


def test_what_lies_between_patches_is_not_computed_and_changes_nothing(monkeypatch):
    torch.manual_seed(0)
    count, stages = 7, []
    for i, shuffle in enumerate((2, 2)):
        conv = nn.Conv2d(12, 12 * shuffle**2, 3, padding=1)
        stages.append(Stage(Conv.of(conv, 0.2, shuffle=shuffle), f"s{i}", f"s{i + 1}"))
    stages.append(Stage(Conv.of(nn.Conv2d(12, 3, 9, padding=4), floats=True), "s2", "picture"))
    grid, x, _ = grid_of(count, 4, 4, 12)
    chain = MapChain(stages, ["s0", "picture"])
    computed = []
    for lists in (True, False):
        if not lists:
            monkeypatch.setattr(Grid, "tiles", lambda *_: None)
        pictures = torch.zeros(count, 16, 16, 3, dtype=torch.uint8)
        chain(grid, {"s0": x, "picture": pictures})
        computed.append(pictures)
    assert torch.equal(*computed)
    alone = Grid(1, (4, 4))
    picture = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    for i, patch in enumerate(patches_of(grid, x)):
        one = Map(12, 4, 4)
        one.write(patch)
        chain(alone, {"s0": one, "picture": picture})
        assert (picture[0].int() - computed[0][i].int()).abs().max() <= 1


def test_of_pictures_only_the_tiles_that_they_show_are_computed(monkeypatch):
    torch.manual_seed(0)
    count = 7
    first, last = nn.Conv2d(12, 48, 3, padding=1), nn.Conv2d(12, 3, 3, padding=1)
    stages = [
        Stage(Conv.of(first, 0.2, shuffle=2), "s0", "s1", crop=2),
        Stage(Conv.of(last, floats=True), "s1", "picture", crop=2),
    ]
    grid, x, _ = grid_of(count, 8, 4, 12)
    chain = MapChain(stages, ["s0", "picture"])
    tiles, computed = [], []
    real = Grid.tiles
    for shown in (True, False):
        monkeypatch.setattr(
            Grid,
            "tiles",
            lambda self, side, scale, inset, s=shown: tiles.append(inset) or real(self, side, scale, inset * s),
        )
        pictures = torch.zeros(count, 8, 8, 3, dtype=torch.uint8)
        chain(grid, {"s0": x, "picture": pictures})
        computed.append(pictures)
    assert tiles[:2] == [0, 4]
    assert torch.equal(*computed)
    assert computed[0].any()


@pytest.mark.parametrize(
    ("small", "large"), [((3, 5), (17, 40)), ((1, 1), (6, 6)), ((9, 7), (30, 33)), ((4, 4), (2, 3))]
)
@pytest.mark.parametrize(("channels", "group"), [(12, 0), (16, 1), (3, 2)])
def test_interpolation_is_bilinear(small, large, channels, group):
    image = torch.randn(channels, *small)
    out = Map(32, *large)
    out.inner().fill_(float("nan"))
    assert map_interpolate_(out.data, group, image, *large) is out.data
    expected = F.interpolate(image[None], size=large, mode="bilinear", align_corners=False)[0]
    groups = -(-channels // 8)
    torch.testing.assert_close(out.read()[8 * group :][:channels], expected, rtol=1e-6, atol=1e-5)
    assert not out.read()[8 * group + channels : 8 * (group + groups)].any()
    written = torch.zeros(4, dtype=torch.bool)
    written[group : group + groups] = True
    assert out.inner()[~written].isnan().all()  # neither other groups
    out.inner().zero_()
    assert not out.data.any()  # nor what is beside the image


def test_a_map_that_is_too_small_is_not_interpolated_into():
    image = torch.zeros(12, 3, 5)
    for arguments in ((2, image, 9, 20), (0, image, 10, 20), (0, image, 9, 29)):
        with pytest.raises(InputError, match=r"map_interpolate_: out must be a map, .* with room for"):
            map_interpolate_(empty_map(24, 9, 20), *arguments)
    for wrong in (image.double(), image[0], torch.zeros(12, 0, 5)):
        with pytest.raises(InputError, match=r"map_interpolate_: x must be float32 \(channels, h, w\)"):
            map_interpolate_(empty_map(24, 9, 20), 0, wrong, 9, 20)
    with pytest.raises(InputError, match="map_interpolate_: group"):
        map_interpolate_(empty_map(24, 9, 20), -1, image, 9, 20)
