"""Convolutions in float maps against float64: kinds of layers, sizes, what joins them, and what must not change a bit.

All of it runs on the kernels of this processor; ``make test-portable`` runs it on those in plain C++.
"""

import pytest
import torch
import torch.nn.functional as F
from map_layers import Case, map_of, poisoned, run, whole

from mga_kernels import ops
from mga_kernels.alone.layout import groups_of, map_pitch
from mga_kernels.ops.convolution.map_layout import read
from mga_kernels.records import FrameRecord, MapRecord
from mga_kernels.runtimes.cpu.pairs import lanes

ERROR = {(3, 0): 4e-6, (3, 4): 1.5e-5, (3, 6): 1.5e-4, (5, 4): 1.5e-4}  # of outputs of rms 1.4, by size and tile
IN_TILES, KINDS = (pytest.mark.parametrize(("size", "tile"), list(ERROR)[first:]) for first in (1, 0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)


def assert_close(found, expected, kind=(3, 0)):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=ERROR[kind])


@KINDS
@pytest.mark.parametrize(
    ("outputs", "inputs", "height", "width"),
    [
        (8, 1, 1, 1),
        (5, 3, 2, 7),
        (25, 25, 7, 13),
        (48, 48, 13, 12),
        (50, 50, 4, 49),
        (64, 64, 17, 5),
        (56, 12, 1, 100),
        (12, 64, 31, 1),
        (72, 9, 6, 24),
        (192, 192, 5, 6),
    ],
)
def test_kernels_in_tiles_are_the_definition(outputs, inputs, height, width, size, tile):
    case = Case(outputs, inputs, size, tile, slope=torch.rand(outputs) * 2 - 0.5)
    image = torch.randn(inputs, height, width)
    assert_close(run(case, image), case.expected(image), (size, tile))


@pytest.mark.parametrize("size", [1, 5, 7, 9])
@pytest.mark.parametrize(
    ("outputs", "inputs", "height", "width"),
    [
        *[
            (1, 8, 5, 5),
            (2, 20, 3, 9),
            (3, 64, 9, 30),
            (4, 1, 1, 1),
            (56, 3, 10, 61),
            (25, 128, 2, 3),
            (64, 10, 11, 12),
        ],
        (3, 8, 5, 12),  # whose last pixels are followed by four, and then by no memory
    ],
)
def test_other_kernels_are_the_definition(outputs, inputs, height, width, size):
    case = Case(outputs, inputs, size, slope=0.2, bias=outputs != 25)
    image = torch.randn(inputs, height, width)
    assert_close(run(case, image), case.expected(image))


@pytest.mark.parametrize(
    ("outputs", "part", "there", "parts"), [(50, 32, 25, 4), (40, 24, 20, 2), (96, 16, 12, 2), (9, 8, 3, 2)]
)
def test_inputs_without_weights_are_left_out_of_1x1_kernels(outputs, part, there, parts):
    """As those are that fill parts of a map up to whole groups: what a map holds there is not even looked at."""
    case = Case(outputs, part * parts, 1, slope=0.2)
    missing = torch.arange(part * parts) % part >= there
    case.weight[:, missing] = 0
    for height, width in ((5, 7), (9, 230)):
        image = torch.randn(part * parts, height, width)
        expected = case.expected(image)
        assert_close(run(case, image), expected)
        image[missing] = float("nan")
        assert_close(run(case, image), expected)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (10, 13), (41, 230)])
@pytest.mark.parametrize(("outputs", "inputs", "size"), [(16, 12, 3), (3, 10, 3), (20, 3, 5)])
def test_a_stride_is_the_definition(outputs, inputs, size, height, width):
    if min(height, width) < size:
        height, width = height + 2, width + 2
    case, image = Case(outputs, inputs, size, settings={"stride": 2}), torch.randn(inputs, height, width)
    expected = case.expected(image)
    assert_close(run(case, image, out=torch.full(expected.shape, float("nan"))), expected)


def test_few_channels_are_float_planes():
    case, image = Case(3, 20, 3), torch.randn(20, 7, 37)
    assert_close(run(case, image, out=torch.full((3, 7, 37), float("nan"))), case.expected(image))


JOINED = {
    "skip": Case(24, 10, 3, 4, slope=0.1),
    "skip times a factor": Case(24, 10, 3, 4, slope=0.1, factors=(0.2, 1.0)),
    "two": Case(24, 10, 3, 4, slope=0.0, factors=(0.2, -1.5)),
    "gate": Case(24, 10, 3, 4, {"gate": 1}, slope=0.1, factors=(0.5, 1.0)),
    "span": Case(24, 10, 3, 6, {"gate": 2}),
    "silu": Case(24, 10, 3, 4, {"activation": 1}),
    "gate of 1x1": Case(24, 10, 1, 0, {"gate": 1}),
    "two beside 5x5": Case(24, 10, 5, 0, slope=0.3, factors=(0.2, 0.3)),
    "factors": Case(24, 24, 0, slope=0.2),
}


@pytest.mark.parametrize("name", JOINED)
def test_what_joins_a_layer_is_the_definition(name):
    case = JOINED[name]
    image, skip, also = torch.randn(case.inputs, 9, 30), torch.randn(24, 9, 30), torch.randn(24, 9, 30)
    skip = None if name == "silu" else skip
    also = also if name.startswith("two") else None
    assert_close(run(case, image, skip, also), case.expected(image, skip, also), (3, case.tile))


def test_extreme_sums_pass_the_sigmoid():
    case, skip = Case(8, 8, 1, settings={"gate": 1}, bias=False), torch.ones(8, 1, 4)
    case.weight = torch.eye(8)[..., None, None]
    found = run(case, torch.tensor([[[-1e4, -30.0, 30.0, 1e4]]]).repeat(8, 1, 1), skip)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 9.357622968840175e-14, 1.0, 1.0]), atol=1e-15, rtol=1e-4)


@KINDS
@pytest.mark.parametrize("shuffle", [2, 3, 4])
@pytest.mark.parametrize("channels", [8, 16, 24])
@pytest.mark.parametrize("enlarging", [False, True])
def test_a_pixel_shuffle_is_the_definition(shuffle, channels, enlarging, size, tile):
    """Channels of the weight are in the order row, column, channel.

    Kernels of an enlargement by repetition have rows and columns of zeros, so no weights at some positions of a tile.
    """
    height, width = 5, 13
    case = Case(channels * shuffle**2, 12, size, tile, {"shuffle": shuffle}, slope=0.2)
    if enlarging:
        phases = case.weight.view(shuffle, shuffle, channels, 12, size, size)
        phases[:-1, ..., -1, :], phases[1:, ..., 0, :], phases[:, :-1, ..., -1], phases[:, 1:, ..., 0] = 0, 0, 0, 0
    image = torch.randn(12, height, width)
    out = poisoned(channels, height * shuffle, width * shuffle)
    ops.convolve_maps_(
        [map_of(image), out],
        [MapRecord(), MapRecord(scale=shuffle)],
        [],
        [case.packed],
        [case.epilogue],
        [case.record()],
        [],
        FrameRecord(height, width),
    )
    planes = case.expected(image).unflatten(0, (shuffle**2, channels)).transpose(0, 1).flatten(0, 1)
    found = read(out, height * shuffle, width * shuffle, 0, channels)
    assert_close(found, F.pixel_shuffle(planes[None], shuffle)[0], (size, tile))


@pytest.mark.parametrize("tile", [0, 4])
def test_parts_of_maps_are_read_and_written(tile):
    """A concatenation is written part by part; what lies beside a part stays as it is."""
    image, case = torch.randn(40, 6, 20), Case(16, 12, 3, tile)
    out = poisoned(48, 6, 20, 7.0)
    record = case.record(x_channel=16, out_channel=24)
    frame = FrameRecord(6, 20)
    maps = [MapRecord(), MapRecord()]
    ops.convolve_maps_([map_of(image), out], maps, [], [case.packed], [case.epilogue], [record], [], frame)
    found = read(out, 6, 20, 0, 48)
    assert_close(found[24:40], case.expected(image[16:28]), (3, tile))
    assert (found[:24] == 7).all()
    assert (found[40:] == 7).all()


def test_layers_run_one_after_the_other():
    """Through a map of a larger scale, with a skip from two layers before, into pictures."""
    height, width, s = 7, 29, 2
    cases = [Case(16, 3, 3, 0, slope=0.1), Case(16, 16, 3, 4, slope=0.1), Case(32, 16, 3, 4, {"shuffle": s})]
    cases += [Case(3, 8, 3, 0)]
    image = torch.rand(3, height, width)
    first = cases[0].expected(image)
    second = cases[1].expected(first.float(), first.float())
    planes = cases[2].expected(second.float()).unflatten(0, (4, 8)).transpose(0, 1).flatten(0, 1)
    exact = cases[3].expected(F.pixel_shuffle(planes[None], s)[0].float()) * 255 * 0.3
    picture = torch.full((1, s * height, s * width, 3), 99, dtype=torch.uint8)
    maps = [map_of(image), poisoned(16, height, width), poisoned(16, height, width)]
    maps += [poisoned(8, s * height, s * width)]
    layers = [cases[0].record(0, 1), cases[1].record(1, 2, skip=1), cases[2].record(2, 3), cases[3].record(3, 4)]
    ops.convolve_maps_(
        [*maps, picture],
        [MapRecord(), MapRecord(), MapRecord(), MapRecord(scale=s), MapRecord(scale=s)],
        [],
        [case.packed for case in cases],
        [case.epilogue for case in cases],
        layers,
        [],
        whole(height, width, s),
        gain=0.3,
    )
    assert exact.std() > 30, "flat pictures prove nothing"
    assert (picture[0].permute(2, 0, 1) - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("height", "width", "scale"), [(1, 1, 2), (1, 1, 4), (4, 37, 2), (5, 17, 3), (9, 201, 4)])
def test_an_enlarged_image_is_added_to_a_picture(height, width, scale, folded):
    """``folded``: the picture comes of a shuffle; else the last layer works at its scale."""
    added = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    s, of_x = (scale, 1) if folded else (1, scale)
    case = Case(3 * s * s, 8, 3, 4 if folded else 0, {"shuffle": s})
    feature = torch.randn(8, of_x * height, of_x * width) * 0.1
    picture = torch.full((1, scale * height, scale * width, 3), 99, dtype=torch.uint8)
    ops.convolve_maps_(
        [map_of(feature), picture],
        [MapRecord(scale=of_x), MapRecord(scale=scale)],
        [],
        [case.packed],
        [case.epilogue],
        [case.record()],
        [],
        whole(height, width, scale),
        added=added,
    )
    large = F.interpolate(added.permute(2, 0, 1)[None].double(), scale_factor=scale, mode="bilinear")[0]
    planes = case.expected(feature).unflatten(0, (s * s, 3)).transpose(0, 1).flatten(0, 1)
    exact = (large + 255 * F.pixel_shuffle(planes[None], s)[0]).clamp(0, 255)
    assert (picture[0].permute(2, 0, 1).double() - exact).abs().max() <= 0.5 + 1e-3


@KINDS
def test_masked_pixels_are_zeros_and_masked_rows_are_kept(size, tile):
    rows, columns = torch.arange(11) % 4 != 2, torch.arange(37) % 5 > 0
    case, image = Case(20, 8, size, tile, slope=0.2), torch.randn(8, 11, 37)
    out = poisoned(20, 11, 37, 7.0)
    found = run(case, image, mask=(lanes(columns), rows.to(torch.uint8)), out=out)
    found = read(out, 11, 37, 0, 20) if found is out else found
    inside = rows[:, None] & columns
    assert_close(found[:, inside], case.expected(image)[:, inside], (size, tile))
    assert (found[:, rows][:, :, ~columns] == 0).all()
    assert (found[:, ~rows] == 7).all()


@pytest.mark.parametrize("tile", [0, 4])
def test_masked_rows_are_read_as_zeros(tile):
    case, image, rows = Case(8, 8, 3, tile), torch.randn(8, 9, 20), torch.arange(9) % 3 > 0
    out, mask = poisoned(8, 9, 20), (lanes(torch.ones(20, dtype=torch.bool)), rows.to(torch.uint8))
    maps = [MapRecord(mask=0), MapRecord()]
    ops.convolve_maps_(
        [map_of(image), out], maps, [mask], [case.packed], [case.epilogue], [case.record()], [], FrameRecord(9, 20)
    )
    assert_close(read(out, 9, 20, 0, 8), case.expected(image * rows[:, None]), (3, tile))


@pytest.mark.parametrize("masked", [False, True])
def test_measured_sums_are_those_of_the_results(masked):
    case, image = Case(12, 9, 3, 4, slope=0.3), torch.randn(9, 33, 70)
    rows, columns = torch.ones(33, dtype=torch.bool), torch.ones(70, dtype=torch.bool)
    if masked:
        rows[10:12], columns[30] = False, False
    (sums,) = ops.convolve_maps_(
        [map_of(image), poisoned(12, 33, 70)],
        [MapRecord(), MapRecord(mask=0)],
        [(lanes(columns), rows.to(torch.uint8))],
        [case.packed],
        [case.epilogue],
        [case.record(statistics=0)],
        [],
        FrameRecord(33, 70),
    )
    kept = case.expected(image)[:, rows][:, :, columns]
    expected = torch.stack([kept.sum(dim=(1, 2)), kept.square().sum(dim=(1, 2))])
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=1e-3)


# --- what must not change a bit


@KINDS
def test_threads_do_not_change_a_bit(size, tile):
    case, image = Case(24, 20, size, tile, slope=0.1), torch.randn(20, 61, 143)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            out = poisoned(24, 61, 143)
            (sums,) = ops.convolve_maps_(
                [map_of(image), out],
                [MapRecord(), MapRecord()],
                [],
                [case.packed],
                [case.epilogue],
                [case.record(statistics=0)],
                [],
                FrameRecord(61, 143),
            )
            results.append((out, sums))
    finally:
        torch.set_num_threads(threads)
    for out, sums in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(sums, results[0][1])


@IN_TILES
def test_a_part_of_an_image_is_computed_to_the_same_bits(size, tile):
    """As tiles of a large image are, with enough of what is around them; they begin with whole tiles of the layer."""
    case, image = Case(24, 20, size, tile), torch.randn(20, 48, 96)
    large = run(case, image)
    part = run(case, image[:, 12:36, 24:72].contiguous())
    assert torch.equal(large[:, 12 + 12 : 36 - 12, 24 + 12 : 72 - 12], part[:, 12:-12, 12:-12])


@pytest.mark.parametrize(("size", "tile"), [*ERROR, (1, 0), (5, 0)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_a_list_of_tiles_is_computed_and_nothing_else(size, tile, share):
    case, image = Case(20, 12, size, tile, slope=0.1), torch.randn(12, 50, 131)
    skip = torch.randn(20, 50, 131)
    side = tile or 4
    down, across = -(-50 // side), -(-131 // side)
    chosen = torch.rand(down * across) < share
    everything = run(case, image, skip)
    out = poisoned(20, 50, 131, 7.0)
    run(case, image, skip, tiles=chosen.nonzero().flatten().int(), out=out)
    found = read(out, 50, 131, 0, 20)
    inside = chosen.view(down, across).repeat_interleave(side, 0).repeat_interleave(side, 1)[:50, :131]
    assert torch.equal(found[:, inside], everything[:, inside])
    assert (found[:, ~inside] == 7).all()


def test_tiles_of_a_picture_are_computed_and_nothing_else():
    case, feature = Case(12, 8, 3, 4, {"shuffle": 2}), torch.rand(8, 30, 50)
    chosen = torch.rand(8 * 13) < 0.4
    pictures = []
    for tiles in ([], [chosen.nonzero().flatten().int()]):
        picture = torch.full((1, 60, 100, 3), 7, dtype=torch.uint8)
        record = case.record(tiles=len(tiles) - 1)
        ops.convolve_maps_(
            [map_of(feature), picture],
            [MapRecord(), MapRecord(scale=2)],
            [],
            [case.packed],
            [case.epilogue],
            [record],
            tiles,
            whole(30, 50, 2),
        )
        pictures.append(picture[0])
    inside = chosen.view(8, 13).repeat_interleave(8, 0).repeat_interleave(8, 1)[:60, :100]
    assert torch.equal(pictures[1][inside], pictures[0][inside])
    assert (pictures[1][~inside] == 7).all()


# --- numbers that are not finite, and errors


@IN_TILES
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_infinities_reach_no_further_than_in_a_plain_convolution(size, tile, value, slope):
    case, image = Case(16, 10, size, tile, slope=slope), torch.randn(10, 17, 40)
    clean = run(case, image)
    for channel, y, x in ((0, 0, 0), (9, 7, 11), (3, 16, 39), (5, 8, 12)):
        image[channel, y, x] = value
    found, expected = run(case, image), case.expected(image)
    if slope == 0:  # as a ReLU has it, where a product would be NaN
        expected = case.sums(image).relu()
    reached = ~expected.isfinite().all(dim=0)
    assert 0 < reached.sum() <= 4 * size**2
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isposinf(), expected.isposinf())
    assert torch.equal(found.isneginf(), expected.isneginf())
    finite = expected.isfinite()
    torch.testing.assert_close(found[finite].double(), expected[finite], rtol=1e-5, atol=ERROR[size, tile])
    near = F.max_pool2d(image.isfinite().logical_not().any(dim=0)[None].float(), 15, 1, 7)[0].bool()
    assert torch.equal(found[:, ~near], clean[:, ~near])


@pytest.mark.parametrize("channels", [48, 50, 64])
def test_the_error_of_tiles_of_4_is_at_most_three_times_that_of_sums_one_after_the_other(channels):
    """Which PyTorch has, too, but for what it does to (C, H, W) with AVX-512: less than two thirds of it."""
    case, image = Case(channels, channels, 3, 4), torch.randn(channels, 60, 92)
    exact, weight = case.sums(image), case.weight.flatten(1)
    taps = F.unfold(image[None], 3, padding=1)[0]
    sums = case.shift[:, None].repeat(1, taps.shape[1])
    for i, values in enumerate(taps):
        sums.addcmul_(weight[:, i : i + 1], values[None])
    errors = [float((v.double() - exact).square().mean().sqrt()) for v in (run(case, image), sums.view_as(exact))]
    assert errors[0] <= 3 * errors[1]


def test_the_pitch_is_whole_tiles_and_a_border():
    assert [map_pitch(width) for width in (1, 12, 13, 480)] == [20, 20, 32, 488]
    assert [groups_of(channels) for channels in (1, 8, 9, 50)] == [1, 1, 2, 7]
