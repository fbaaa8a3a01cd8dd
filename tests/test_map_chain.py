"""Chains of layers in float maps: which slots share a map, and what is stored where."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mga_kernels.runtimes.cpu import choose
from mga_kernels.runtimes.cpu.layers import Conv, Scale, beside, stacked
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage
from mga_kernels.system.allocator import empty_in_huge_pages, huge_pages


def conv2d(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    return F.conv2d(x[None].double(), conv.weight.double(), conv.bias.double(), padding=conv.padding)[0]


def map_of(image: torch.Tensor) -> Map:
    stored = Map(*image.shape)
    stored.write(image)
    return stored


def rooms(stages: list[Stage]) -> set[tuple[int, int, int]]:
    """Of a chain from "x" to "out", over maps of all rows."""
    return {tuple(room[:3]) for room, _ in MapChain(stages, ["x", "out"]).rows.rooms(100, 0).values()}


def test_slots_that_are_not_in_use_together_share_a_room():
    conv = Conv(torch.randn(8, 8, 3, 3))
    stages = [Stage(conv, x, out) for x, out in (("x", "a"), ("a", "b"), ("b", "c"), ("c", "out"))]
    assert rooms(stages) == {(1, 1, 0), (1, 1, 1)}
    stages[3] = Stage(conv, "c", "out", "a")  # what is added later is in use until then
    assert rooms(stages) == {(1, 1, 0), (1, 1, 1), (1, 1, 2)}
    stages[3] = Stage(conv, "c", "out", "b", also="a")
    assert rooms(stages) == {(1, 1, 0), (1, 1, 1), (1, 1, 2)}
    wide = Stage(Conv(torch.randn(16, 8, 1, 1)), "x", "w")
    assert (2, 1, 0) in rooms([wide, Stage(Conv(torch.randn(8, 16, 1, 1)), "w", "out")])


@pytest.mark.parametrize("kept", choose.STORAGES)
def test_parts_of_a_slot_begin_where_the_storage_says(kept):
    """Of 5 and 6 channels, side by side, made by one convolution and read by another."""
    torch.manual_seed(3)
    storage = choose.STORAGES[kept]
    first, second, join = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(12, 8, 1)
    part = storage.whole(6)
    assert part == {"bfloat16": 6, "float32": 8}[kept]
    make = Conv(stacked([first.weight, second.weight], part))
    take = Conv(beside(join.weight.chunk(2, dim=1), part), join.bias)
    x, out = storage.planes(4, 5, 21), storage.planes(8, 5, 21)
    image = torch.randn(4, 5, 21)
    x.write(image)
    storage.chain([Stage(make, "x", "both"), Stage(take, "both", "out")], ["x", "out"])(
        Grid(1, (5, 21)), {"x": x, "out": out}
    )
    both = torch.cat([F.conv2d(image[None], layer.weight)[0] for layer in (first, second)])
    tolerance = 0.05 if storage.narrow else 1e-5
    torch.testing.assert_close(out.read().double(), conv2d(both, join), atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_a_second_image_takes_no_memory_of_its_own():
    torch.manual_seed(4)
    convolutions = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]
    slots = ["x", "a", "b", "out"]
    stages = [Stage(Conv.of(conv), slots[i], slots[i + 1]) for i, conv in enumerate(convolutions)]
    chain, grid = MapChain(stages, ["x", "out"]), Grid(1, (9, 30))
    addresses = []
    for _ in range(2):
        image = torch.randn(8, 9, 30)
        out = Map(8, 9, 30)
        chain(grid, {"x": map_of(image), "out": out})
        for conv in convolutions:
            image = conv2d(image, conv).float()
        torch.testing.assert_close(out.read(), image, atol=1e-4, rtol=1e-4)
        addresses.append([room.data_ptr() for room in grid.rooms.maps.values()])
    assert addresses[0] == addresses[1]
    assert len(addresses[0]) == len(rooms(stages))


def test_factors_come_with_the_call():
    torch.manual_seed(5)
    scale, image, skip = Scale(6, 0.2), torch.randn(6, 4, 13), torch.randn(6, 4, 13)
    factors, offsets = torch.randn(6), torch.randn(6)
    chain, out = MapChain([Stage(scale, "x", "out", "skip")], ["x", "skip", "out"]), Map(6, 4, 13)
    given = {"x": map_of(image), "skip": map_of(skip), "out": out}
    chain(Grid(1, (4, 13)), given, {0: scale.with_factors(factors, offsets)})
    expected = F.leaky_relu(image * factors[:, None, None] + offsets[:, None, None] + skip, 0.2)
    torch.testing.assert_close(out.read(), expected)


@pytest.mark.parametrize("layer", ["conv", "scale", "given"])
def test_two_parts_are_added_each_with_its_factor(layer):
    """Over one of the two, and without a factor beside it where the stage has none."""
    torch.manual_seed(7)
    conv, factors = nn.Conv2d(8, 8, 3, padding=1), torch.randn(8)
    scale = Scale(8, factors=None if layer == "given" else factors)
    image, skip, also = (torch.randn(8, 6, 15) for _ in range(3))
    chosen, result = Conv.of(conv) if layer == "conv" else scale, image * factors[:, None, None]
    both = torch.cat([skip, also])
    slots = ["x", "both", "out", "plain"]
    added = {"skip": ("both", 0), "also": ("both", 8)}
    stages = [
        Stage(chosen, "x", "plain", **added),
        Stage(chosen, "x", ("both", 8), factors=(0.3, -2.0), **added),
    ]
    given = {"x": map_of(image), "both": map_of(both), "out": Map(8, 6, 15), "plain": Map(8, 6, 15)}
    epilogues = {i: scale.with_factors(factors, torch.zeros(8)) for i in range(2)} if layer == "given" else None
    MapChain(stages, slots)(Grid(1, (6, 15)), given, epilogues)
    expected = conv2d(image, conv).float() if layer == "conv" else result
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(given["plain"].read(), expected + skip + also, **close)
    torch.testing.assert_close(given["both"].read()[8:], expected + 0.3 * skip - 2 * also, **close)
    assert torch.equal(given["both"].read()[:8], skip)


@pytest.mark.parametrize("count", [1, 5, 7])
@pytest.mark.parametrize("repeated", [-1, 8])
def test_cells_are_gathered_with_what_is_around_them(count, repeated):
    torch.manual_seed(6)
    p, halo, storage = 4, 1, choose.STORAGES["float32"]
    feature = torch.randn(12, 3 * p, 5 * p)
    indices = torch.randperm(15)[:count].sort().values.int()[None]
    grid = Grid(count, (p + 2, p + 2), 3)
    out = storage.planes(12, grid.height, grid.width)
    storage.gather(grid, out, map_of(feature), (3, 5), indices, halo, repeated)
    padded = F.pad(feature, (1, 1, 1, 1))
    if repeated >= 0:
        padded[repeated:] = F.pad(feature[None, repeated:], (1, 1, 1, 1), mode="replicate")[0]
    expected = torch.stack([padded[:, i // 5 * p :, i % 5 * p :][:, : p + 2, : p + 2] for i in indices[0].tolist()])
    found = grid.patches(out, 0, out.groups).flatten(2, 3).flatten(0, 1)[:count, :12]
    assert torch.equal(found, expected)


def test_large_memory_is_asked_to_have_huge_pages():
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert huge_pages(torch.empty(8 << 20, dtype=torch.uint8))
    assert not huge_pages(torch.empty(1000))
    assert not huge_pages(torch.empty(8 << 20, device="meta"))


@pytest.mark.parametrize(("shape", "dtype"), [((1080, 1920, 3), torch.uint8), ((600, 400, 3), torch.float32)])
def test_a_large_picture_begins_where_a_huge_page_does(shape, dtype):
    with torch.device("meta"):
        picture, small = empty_in_huge_pages(shape, dtype), empty_in_huge_pages((9, 9, 3), dtype)
    assert picture.data_ptr() % (2 << 20) == 0
    assert small.untyped_storage().nbytes() == small.nbytes
    for one, size in ((picture, shape), (small, (9, 9, 3))):
        assert (one.shape, one.dtype, one.is_contiguous()) == (size, dtype, True)
        assert one.fill_(7).eq(7).all()  # all of it is there
