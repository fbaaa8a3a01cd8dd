"""Chains of layers in pair planes: what lies between them, and what they end in."""

import pytest
import torch
import torch.nn.functional as F
from pair_layers import assert_border_is_zero, assert_rounded, planes_of, poisoned, rounded
from torch import nn

from mga_kernels.errors import InputError
from mga_kernels.runtimes.cpu.chains import PairChain
from mga_kernels.runtimes.cpu.layers import Conv, Scale
from mga_kernels.runtimes.cpu.pairs import Grid, Planes
from mga_kernels.runtimes.cpu.stages import Stage


def conv2d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """In float64, (C, H, W) to the same size."""
    bias = None if bias is None else bias.double()
    return F.conv2d(x[None].double(), weight.double(), bias, padding=weight.shape[-1] // 2)[0]


def stored(x: torch.Tensor) -> torch.Tensor:
    """As planes hold it between two layers."""
    return x.float().bfloat16().double()


@pytest.mark.parametrize("gate", [False, True])
def test_skip_is_added_before_the_activation_or_gated(gate):
    torch.manual_seed(1)
    image, skip = rounded(12, 6, 37), rounded(20, 6, 37)
    weight, bias = rounded(20, 12, 3, 3, scale=0.1), torch.randn(20)
    exact = conv2d(image, weight, bias)
    exact = F.leaky_relu(exact.sigmoid() * skip if gate else exact + skip, 0.2)
    out = poisoned(20, 6, 37)
    chain = PairChain([Stage(Conv(weight, bias, 0.2), "x", "out", "skip", gate)], ["x", "out", "skip"])
    chain(Grid(1, (6, 37)), {"x": planes_of(image), "out": out, "skip": planes_of(skip)})
    torch.testing.assert_close(out.read().double(), exact, rtol=2**-8 + 3e-4, atol=1e-5)


def test_extreme_sums_pass_the_sigmoid():
    x, skip, out = Planes(2, 1, 4), planes_of(torch.ones(2, 1, 4)), poisoned(2, 1, 4)
    x.write(torch.tensor([[[-1e4, -30.0, 30.0, 1e4]]]).repeat(2, 1, 1))
    identity = Conv(torch.eye(2)[..., None, None])
    chain = PairChain([Stage(identity, "x", "out", "skip", gate=True)], ["x", "out", "skip"])
    chain(Grid(1, (1, 4)), {"x": x, "out": out, "skip": skip})
    expected = torch.tensor([0.0, 9.357622968840175e-14, 1.0, 1.0])
    torch.testing.assert_close(out.read()[0, 0], expected, atol=1e-15, rtol=0.01)


def test_parts_of_planes_are_read_and_written():
    torch.manual_seed(2)
    image, weight = rounded(10, 5, 20), rounded(4, 6, 3, 3)
    out = Planes(12, 5, 20)
    out.inner().fill_(7)
    chain = PairChain([Stage(Conv(weight), ("x", 4), ("out", 6))], ["x", "out"])
    chain(Grid(1, (5, 20)), {"x": planes_of(image), "out": out})
    assert_rounded(out.read()[6:10], conv2d(image[4:], weight))
    assert (out.read()[:6] == 7).all()
    assert (out.read()[10:] == 7).all()


def deep_chain(measure: bool = True) -> tuple[PairChain, list[torch.Tensor]]:
    """Rings that are read at other rows than they are written, at three scales, by convolutions of several sizes."""
    torch.manual_seed(3)
    weights = [rounded(12, 6, 5, 5, scale=0.1), rounded(12, 12, 3, 3, scale=0.1), rounded(32, 12, 3, 3, scale=0.1)]
    weights += [rounded(8, 8, 3, 3, scale=0.1), rounded(32, 8, 3, 3, scale=0.1), rounded(8, 8, 9, 9, scale=0.05)]
    stages = [
        Stage(Conv(weights[0], slope=0.2), "x", "first"),
        Stage(Conv(weights[1], slope=0.2), "first", "second", "first"),
        Stage(Conv(weights[2], slope=0.2, shuffle=2), "second", "twice"),
        Stage(Conv(weights[3], slope=0.2), "twice", "again", "twice"),
        Stage(Conv(weights[4], slope=0.2, shuffle=2), "again", "four times"),
        Stage(Conv(weights[5]), "four times", "out", "four times", measure=measure),
    ]
    return PairChain(stages, ["x", "out"]), weights


def by_definition(image: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    def leaky(x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, 0.2)

    first = stored(leaky(conv2d(image, weights[0])))
    second = stored(leaky(conv2d(first, weights[1]) + first))
    twice = stored(leaky(F.pixel_shuffle(conv2d(second, weights[2]), 2)))
    again = stored(leaky(conv2d(twice, weights[3]) + twice))
    four_times = stored(leaky(F.pixel_shuffle(conv2d(again, weights[4]), 2)))
    return conv2d(four_times, weights[5]) + four_times


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 20), (50, 33)])
def test_rings_hold_what_is_still_needed(height, width):
    chain, weights = deep_chain()
    image = rounded(6, height, width)
    exact = by_definition(image, weights)
    out = poisoned(8, 4 * height, 4 * width)
    (statistics,) = chain(Grid(1, (height, width)), {"x": planes_of(image), "out": out})
    torch.testing.assert_close(out.read().double(), exact, rtol=0.02, atol=0.02)
    assert_border_is_zero(out)
    found = out.read().double()
    torch.testing.assert_close(statistics[0], found.sum(dim=(1, 2)), rtol=5e-3, atol=2e-3 * float(found.abs().sum()))
    torch.testing.assert_close(statistics[1], found.square().sum(dim=(1, 2)), rtol=5e-3, atol=0)


def test_threads_do_not_change_a_bit():
    chain, _ = deep_chain()
    x, threads = planes_of(rounded(6, 97, 40)), torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            out = poisoned(8, 4 * 97, 4 * 40)
            (statistics,) = chain(Grid(1, (97, 40)), {"x": x, "out": out})
            results.append((out.data, statistics))
    finally:
        torch.set_num_threads(threads)
    for data, statistics in results[1:]:
        assert torch.equal(data, results[0][0])
        assert torch.equal(statistics, results[0][1])


def test_strips_of_a_wide_image_join():
    """A chain that measures goes over whole rows, the same one without does not."""
    chain, _ = deep_chain()
    assert chain.ring_bytes(2700) > 2 * (3 << 19)
    x, whole, joined = planes_of(rounded(6, 3, 2700)), poisoned(8, 12, 10800), poisoned(8, 12, 10800)
    chain(Grid(1, (3, 2700)), {"x": x, "out": whole})
    deep_chain(measure=False)[0](Grid(1, (3, 2700)), {"x": x, "out": joined})
    assert torch.equal(whole.data, joined.data)


def test_patches_keep_to_themselves_at_every_scale():
    """Cropped and enlarged patches in a grid, against each by itself."""
    torch.manual_seed(4)
    count, side, across = 7, 6, 3
    patches = rounded(count, 6, side, side)
    enlarging, conv = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3)
    last, bias = rounded(3, 8, 3, 3, scale=0.3), torch.full((3,), 0.5)
    stages = [
        Stage(Conv.of_enlarged(enlarging, 2), "x", "large", crop=True),
        Stage(Conv.of(conv), "large", "padded"),
        Stage(Conv(last, bias, floats=True), "padded", "picture", crop=True),
    ]
    grid = Grid(count, (side, side), across)
    x, pictures = Planes(6, grid.height, grid.width), torch.full((count, 8, 8, 3), 99, dtype=torch.uint8)
    cells = F.pad(patches, (0, 0, 0, 0, 0, 0, 0, 9 - count)).unflatten(1, (-1, 2)).unflatten(0, (3, 3))
    grid.patches(x, 0, 3).copy_(cells)
    PairChain(stages, ["x", "picture"])(grid, {"x": x, "picture": pictures})
    large = F.conv2d(F.interpolate(patches, scale_factor=2), enlarging.weight, enlarging.bias)
    padded = F.conv2d(large, conv.weight, conv.bias, padding=1)
    exact = F.conv2d(padded, last, bias).detach() * 255
    assert exact.std() > 20, "flat pictures prove nothing"
    assert (pictures.permute(0, 3, 1, 2) - exact.clamp(0, 255)).abs().max() < 3


@pytest.mark.parametrize("gain", [1.0, 0.25])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_pictures_are_shuffled_and_rounded(scale, gain):
    torch.manual_seed(6)
    feature = rounded(10, 5, 37)
    weight, bias = rounded(3 * scale**2, 10, 3, 3, scale=0.1 / gain), torch.full((3 * scale**2,), 0.5 / gain)
    image = torch.full((5 * scale + 2, 37 * scale + 3, 3), 99, dtype=torch.uint8)
    chain = PairChain([Stage(Conv(weight, bias, floats=True), "x", "picture", enlarge=scale)], ["x", "picture"])
    target = image[None, : 5 * scale, : 37 * scale]
    chain(Grid(1, (5, 37)), {"x": planes_of(feature), "picture": target}, gain=gain)
    exact = F.pixel_shuffle(conv2d(feature, weight, bias)[None], scale)[0] * gain
    exact = (exact.clamp(0, 1) * 255).permute(1, 2, 0)
    assert (target.double() - exact).abs().max() <= 0.5 + 1e-3
    assert (image[5 * scale :] == 99).all()
    assert (image[:, 37 * scale :] == 99).all()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(1, 1, 2), (1, 1, 4), (4, 37, 2), (4, 37, 3), (4, 37, 4), (3, 2001, 4)]
)
def test_an_enlarged_image_is_added_to_the_picture(height, width, scale):
    """The last one is so wide that it goes in strips."""
    torch.manual_seed(7)
    added = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    feature = rounded(4, scale * height, scale * width)
    weights = rounded(24, 4, 1, 1), rounded(3, 24, 3, 3, scale=0.01)
    stages = [
        Stage(Conv(weights[0]), "x", "between"),
        Stage(Conv(weights[1], floats=True), "between", "picture"),
    ]
    picture = torch.full((1, scale * height, scale * width, 3), 99, dtype=torch.uint8)
    chain = PairChain(stages, ["x", "picture"], {"x": scale})
    chain(Grid(1, (height, width)), {"x": planes_of(feature), "picture": picture}, added=added)
    assert (chain.ring_bytes(width) > 2 * (3 << 19)) == (width > 2000)
    large = F.interpolate(added.permute(2, 0, 1)[None].double(), scale_factor=scale, mode="bilinear")
    exact = large[0] + 255 * conv2d(stored(conv2d(feature, weights[0])), weights[1])
    difference = (picture[0].double() - exact.clamp(0, 255).permute(1, 2, 0)).abs()
    assert difference.max() <= 0.5 + 0.15  # 24 * 9 roundings to bf16


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(1, 1, 2), (1, 1, 4), (4, 37, 2), (5, 17, 3), (4, 37, 4), (6, 2001, 4)]
)
def test_an_enlarged_image_is_added_to_a_shuffled_picture(height, width, scale):
    torch.manual_seed(7)
    added = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    feature = rounded(6, height, width)
    weight = rounded(3 * scale**2, 6, 3, 3, scale=0.03)
    picture = torch.full((1, scale * height, scale * width, 3), 99, dtype=torch.uint8)
    chain = PairChain([Stage(Conv(weight, floats=True), "x", "picture", enlarge=scale)], ["x", "picture"])
    chain(Grid(1, (height, width)), {"x": planes_of(feature), "picture": picture}, added=added)
    large = F.interpolate(added.permute(2, 0, 1)[None].double(), scale_factor=scale, mode="bilinear")
    exact = large[0] + 255 * F.pixel_shuffle(conv2d(feature, weight)[None], scale)[0]
    difference = (picture[0].double() - exact.clamp(0, 255).permute(1, 2, 0)).abs()
    assert difference.max() <= 0.5 + 1e-3


def test_factors_and_offsets_come_with_the_call():
    torch.manual_seed(8)
    image, skip, factors, offsets = rounded(6, 5, 33), rounded(6, 5, 33), torch.randn(6), torch.randn(6)
    scaling, weight = Scale(6, 0.2), rounded(4, 6, 3, 3, scale=0.2)
    chain = PairChain(
        [Stage(scaling, "x", "scaled", "skip"), Stage(Conv(weight), "scaled", "out")], ["x", "skip", "out"]
    )
    out = poisoned(4, 5, 33)
    given = {"x": planes_of(image), "skip": planes_of(skip), "out": out}
    chain(Grid(1, (5, 33)), given, epilogues={0: scaling.with_factors(factors, offsets)})
    scaled = F.leaky_relu(image * factors[:, None, None] + offsets[:, None, None] + skip, 0.2)
    torch.testing.assert_close(out.read().double(), conv2d(stored(scaled), weight), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("stages", "whole"),
    [
        ([("x", "x", None)], ["x"]),
        ([("y", "x", "x")], ["x", "y"]),
        ([("x", "ring", None), ("ring", "y", None), ("y", "ring", None), ("ring", "z", None)], ["x", "y", "z"]),
        ([("x", "ring", None), ("ring", "x", None)], ["x"]),
        ([("x", "same as x", None)], ["x", "same as x"]),
    ],
)
def test_what_has_been_read_is_not_written_over(stages, whole):
    """Two threads compute some rows twice, the second time from what was written over."""
    memory = {name: Planes(8, 9, 20) for name in ("x", "y", "z")}
    memory["same as x"] = memory["x"]
    conv = Conv(torch.zeros(4, 4, 3, 3))
    chain = PairChain([Stage(conv, x, out, skip) for x, out, skip in stages], whole)
    with pytest.raises(InputError, match=r"stage \d writes over what (it|an earlier stage) reads; let it"):
        chain(Grid(1, (9, 20)), {name: memory[name] for name in whole})


def test_other_pairs_of_the_same_memory_are_written():
    weight = rounded(4, 4, 3, 3)
    x = planes_of(torch.cat([rounded(4, 9, 20), torch.zeros(4, 9, 20)]))
    PairChain([Stage(Conv(weight), "x", ("x", 4))], ["x"])(Grid(1, (9, 20)), {"x": x})
    assert_rounded(x.read()[4:], conv2d(x.read()[:4], weight))


@pytest.mark.parametrize("order", [1, -1])
def test_planes_may_begin_where_others_end(order):
    weight, x, out = rounded(16, 4, 3, 3), planes_of(rounded(4, 9, 20)), Planes(4, 18, 40)
    exact, memory, begin = conv2d(x.read(), weight), torch.empty(x.data.numel() + out.data.numel()).bfloat16(), 0
    for planes in (x, out)[::order]:
        end = begin + planes.data.numel()
        planes.data, begin = memory[begin:end].view(planes.data.shape).copy_(planes.data), end
    PairChain([Stage(Conv(weight, shuffle=2), "x", "out")], ["x", "out"])(Grid(1, (9, 20)), {"x": x, "out": out})
    assert_rounded(out.read(), F.pixel_shuffle(exact, 2))


@pytest.mark.parametrize(
    ("channels", "settings", "out", "message"),
    [
        (4, {"gate": True}, Planes(4, 5, 20), "does not fit what it writes, or gates nothing"),
        (6, {}, torch.zeros(1, 5, 20, 3, dtype=torch.uint8), r"a picture needs 3 x 1\^2 channels, not 6"),
        (3, {}, torch.zeros(2, 5, 20, 3, dtype=torch.uint8), "2 pictures of 5x20 do not fit into 5x20"),
        (2, {"measure": True}, torch.zeros(2, 5, 20), "statistics must be float64"),
        (4, {"enlarge": 2}, Planes(4, 10, 40), "4 values|channels"),
    ],
)
def test_wrong_chains_are_refused(channels, settings, out, message):
    layer = Conv(torch.zeros(channels, 6, 3, 3), floats=True)
    chain = PairChain([Stage(layer, "x", "out", **settings)], ["x", "out"])
    with pytest.raises(InputError, match=message):
        chain(Grid(1, (5, 20)), {"x": Planes(6, 5, 20), "out": out})


def test_leads_and_rings_are_those_of_the_documentation():
    """The example of docs/architecture.md, and what it says of a skip and of a third convolution."""
    layer = Conv(torch.zeros(4, 4, 3, 3))
    two = [Stage(layer, "x", "hidden"), Stage(layer, "hidden", "out")]
    chain = PairChain(two, ["x", "out"])
    assert [record.lead for record in chain.records] == [1, 0]
    assert chain.slots["hidden"].rows == 3
    chain = PairChain([*two[:1], Stage(layer, "hidden", "more"), Stage(layer, "more", "out", "hidden")], ["x", "out"])
    assert [record.lead for record in chain.records] == [2, 1, 0]
    assert (chain.slots["hidden"].rows, chain.slots["more"].rows) == (3, 3)
