"""``convolve_pixels_``: its definition against PyTorch's convolution, packed weights, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from pixel_layers import LAYERS, arguments

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops import convolve_pixels_
from mga_kernels.ops.convolve_pixels import OPERATOR
from mga_kernels.ops.convolve_pixels.layout import block_of, pack_pixel_weight, padded, whole

HEIGHT, WIDTH = 10, 19  # four tiles


def layer(generator, inputs=5, outputs=7, size=3, dtype=torch.float64):
    x = torch.randn(HEIGHT, WIDTH, whole(inputs), generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, size, size, generator=generator)
    packed, factors = pack_pixel_weight(weight, dtype)
    epilogue = torch.zeros(5, padded(outputs))
    epilogue[0, :outputs], epilogue[4] = torch.randn(outputs, generator=generator), factors
    return x.to(dtype), weight, packed, epilogue


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (9, 1)])
def test_the_definition_is_a_convolution(size, stride, generator, free_choice):
    x, weight, packed, epilogue = layer(generator, size=size)
    image = x[..., :5].permute(2, 0, 1)[None]
    padding = size // 2 if stride == 1 else 0
    wanted = F.conv2d(image, weight.double(), epilogue[0, :7].double(), stride, padding)[0].permute(1, 2, 0)
    out = torch.full(wanted.shape, torch.nan, dtype=torch.float64)
    assert convolve_pixels_(out, x, packed, epilogue, size=size, stride=stride) is out
    torch.testing.assert_close(out, wanted)
    assert ops.last_backend("convolve_pixels_") == "reference"


def test_shuffles_and_bytes_are_in_the_order_row_column_channel(generator, free_choice):
    x, _, packed, epilogue = layer(generator, outputs=12)
    out = torch.empty(2 * HEIGHT, 2 * WIDTH, 3, dtype=torch.float64)
    convolve_pixels_(out, x, packed, epilogue, shuffle=2)
    plain = torch.empty(HEIGHT, WIDTH, 12, dtype=torch.float64)
    convolve_pixels_(plain, x, packed, epilogue)
    order = torch.arange(12).view(4, 3).T.flatten()  # that of pixel_shuffle is colour, row, column
    wanted = F.pixel_shuffle(plain[..., order].permute(2, 0, 1), 2).permute(1, 2, 0)
    torch.testing.assert_close(out, wanted)
    picture = torch.empty(1, 2 * HEIGHT, 2 * WIDTH, 3, dtype=torch.uint8)
    convolve_pixels_(picture, x, packed, epilogue, shuffle=2, gain=0.2)
    assert torch.equal(picture[0], (wanted * 51).clamp(0, 255).round().byte())


def test_gates_factors_and_slopes(generator, free_choice):
    x, _, packed, epilogue = layer(generator)
    epilogue[1], epilogue[2], epilogue[3] = 0.1, 2.0, -3.0
    plain = torch.empty(HEIGHT, WIDTH, 7, dtype=torch.float64)
    convolve_pixels_(plain, x, packed, epilogue)
    skip, also = (torch.randn(plain.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    out = torch.empty_like(plain)
    for gate, wanted in enumerate(
        (plain + 2 * skip - 3 * also, plain.sigmoid() * 2 * skip, (plain + 2 * skip) * (plain.sigmoid() - 0.5))
    ):
        convolve_pixels_(out, x, packed, epilogue, skip, also, gate=gate, activation=1)
        torch.testing.assert_close(out, F.leaky_relu(wanted, float(epilogue[1, 0])))
    convolve_pixels_(out, x, packed, epilogue, activation=2)
    torch.testing.assert_close(out, F.silu(plain))


def test_tiles_leave_the_others_and_sums_are_theirs(generator, free_choice):
    x, _, packed, epilogue = layer(generator)
    whole_image, part = (torch.full((HEIGHT, WIDTH, 7), 9.0, dtype=torch.float64) for _ in range(2))
    sums, some = torch.zeros(4, 2, 7), torch.full((4, 2, 7), 9.0)
    convolve_pixels_(whole_image, x, packed, epilogue, sums=sums)
    torch.testing.assert_close(sums.double().sum(dim=0)[1], whole_image.square().sum(dim=(0, 1)))
    tiles = torch.tensor([1, -1, 2], dtype=torch.int32)
    convolve_pixels_(part, x, packed, epilogue, tiles=tiles, sums=some)
    for number, (rows, columns) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        place = slice(8 * rows, 8 * rows + 8), slice(16 * columns, 16 * columns + 16)
        listed = number in (1, 2)
        assert torch.equal(part[place], whole_image[place] if listed else torch.full_like(part[place], 9))
        assert torch.equal(some[number], sums[number] if listed else torch.full_like(some[number], 9))


def test_a_counted_list_computes_empties_and_leaves(generator, free_choice):
    """By hand: what lies behind the count is not there; of tiles that become zeros nothing is added either."""
    x, _, packed, epilogue = layer(generator)
    whole_image, part, skip = (torch.full((HEIGHT, WIDTH, 7), 9.0, dtype=torch.float64) for _ in range(3))
    epilogue[2] = 1.0
    convolve_pixels_(whole_image, x, packed, epilogue, skip)
    tiles = torch.tensor([2, -2, -1, 1], dtype=torch.int32)
    given = {"tiles": tiles, "count": torch.tensor(3, dtype=torch.int32)}
    convolve_pixels_(part, x, packed, epilogue, skip, **given)
    assert torch.equal(part[8:, :16], whole_image[8:, :16])
    assert not part[:8, :16].any()
    assert (part[:, 16:] == 9).all()
    some, chosen = torch.full_like(part, 9), torch.zeros(4, 7, dtype=torch.bool)
    chosen[2, 4] = True  # of cells of 3 pixels: two rows become zeros, one is computed
    convolve_pixels_(some, x, packed, epilogue, skip, **given, chosen=chosen, cell=3)
    chosen[2, 4], chosen[3, 0] = False, True
    convolve_pixels_(some, x, packed, epilogue, skip, **given, chosen=chosen, cell=3)
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[9:, :3] = inside[8, 12:15] = True
    assert torch.equal(some[inside], whole_image[inside])
    assert not some[6:8, 12:15].any()
    inside[6:8, 12:15] = True
    assert (some[~inside] == 9).all()


def test_packed_weights_keep_what_float16_would_lose(generator):
    """Weights of an image in 0..255 are hundreds of times smaller, down among numbers that have few bits."""
    weight = torch.randn(40, 3, 3, 3, generator=generator) / 255 / 1000
    packed, factors = pack_pixel_weight(weight, torch.float16)
    assert packed.shape == (9, 16, 64)
    back = (packed.float() * factors).permute(2, 1, 0).reshape(64, 16, 3, 3)[:40, :3]
    assert float((back - weight).abs().max()) < 6e-4 * float(weight.abs().max())
    assert float((weight.half().float() - weight).abs().max()) > 2e-3 * float(weight.abs().max())
    assert not packed[:, 3:].any()
    assert not packed[..., 40:].any()
    assert torch.equal(torch.frexp(factors)[0], torch.full((64,), 0.5))  # powers of two


def test_outputs_are_padded_to_whole_blocks():
    """The launcher and the check of shapes start from the outputs, the packing too."""
    assert [padded(n) for n in (1, 16, 17, 33, 48, 64, 65, 128, 200)] == [16, 16, 32, 64, 64, 64, 128, 128, 256]
    for outputs in range(1, 300):
        assert padded(outputs) % block_of(outputs) == 0
        assert padded(outputs) - outputs < block_of(outputs)


def changed(given, **values):
    tensors = "out x weight epilogue skip also tiles sums finite added count chosen"
    names = f"{tensors} size stride shuffle gate activation cells gain cell"
    return {**dict(zip(names.split(), given, strict=True)), **values}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("3x3", {"size": 2}, "size must be 0 or odd up to 9"),
        ("3x3", {"stride": 3}, "stride 1 or 2"),
        ("3x3", {"gate": 3}, "gate and activation must be 0, 1 or 2"),
        ("3x3", {"shuffle": 5}, "shuffle 1 to 4"),
        ("3x3", {"cells": [1]}, "cells must be none or six numbers, got 1"),
        ("3x3", {"x": torch.zeros(4, 4, 10)}, "x must be floating .* multiple of 16, got .4, 4, 10."),
        ("3x3", {"out": torch.zeros(4, 4, 24, dtype=torch.int32)}, "out must be floating .* or uint8"),
        ("3x3", {"out": torch.zeros(4, 4, 24)}, "out must have 6x19 pixels, got 4x4"),
        ("3x3", {"epilogue": torch.zeros(4, 32)}, r"epilogue must be float32 \(5, 32\)"),
        ("3x3", {"weight": torch.zeros(9, 16, 32)}, r"weight must be torch.float16 \(9, 32, 32\)"),
        ("factors", {"x": torch.zeros(6, 19, 16)}, "x has 16 channels, and 20 are scaled"),
        ("3x3", {"skip": torch.zeros(4, 4, 24)}, "skip must be floating and as large as out"),
        ("3x3", {"gate": 1}, "gate 1 multiplies skip, which is missing"),
        ("3x3", {"tiles": torch.zeros(3)}, r"tiles must be int32 \(n\)"),
        ("3x3", {"count": torch.tensor(1, dtype=torch.int32)}, r"count must be int32 \(\), of a list of tiles"),
        ("tiles", {"count": torch.tensor(1)}, r"count must be int32 \(\), of a list of tiles, got .* torch.int64"),
        ("3x3", {"chosen": torch.ones(2, 5, dtype=torch.bool)}, "cell .*1 or more.* 0"),
        ("3x3", {"chosen": torch.ones(2, 4, dtype=torch.bool), "cell": 4}, "chosen must be bool .* at least 2x5 cells"),
        ("3x3", {"chosen": torch.ones(2, 5), "cell": 4}, "chosen must be bool .* at least 2x5 cells"),
        ("3x3", {"sums": torch.zeros(3, 2, 24)}, r"sums must be float32 \(2, 2, channels of out\)"),
        ("shuffle", {"sums": torch.zeros(2, 2, 16)}, "sums .* without a shuffle"),
        ("3x3", {"finite": torch.zeros(1)}, "finite must be a bool of no dimension"),
        ("3x3", {"added": torch.zeros(4, 4, 3, dtype=torch.uint8)}, "added must be uint8 .* for pictures"),
    ],
)
def test_what_does_not_fit_is_refused(name, values, message, generator, free_choice):
    given = changed(arguments(name, torch.float16, generator), **values)
    with pytest.raises(InputError, match=f"^convolve_pixels_: .*{message}"):
        convolve_pixels_(**given)


def test_the_kernel_says_what_it_does_not_take(generator, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernel = OPERATOR.backends["triton"]
    if kernel.unavailable():
        pytest.skip(kernel.unavailable())
    given = arguments("3x3", torch.float16, generator)
    assert kernel.can_run(*given) is None
    out, x, weight, epilogue, *others = given
    apart = torch.empty(6, 19, 40, dtype=torch.float16)[..., :32]
    assert kernel.can_run(out, apart, weight, epilogue, *others) == (
        "the channels of x do not lie side by side at multiples of 16"
    )
    assert "torch.float64 is not among its dtypes" in kernel.can_run(out, x.double(), weight, epilogue, *others)
    turned = weight.transpose(1, 2).contiguous().transpose(1, 2)
    assert kernel.can_run(out, x, turned, epilogue, *others) == "weight or epilogue are not contiguous"


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_the_kernels_tests_is_a_call(name, generator, free_choice):
    given = changed(arguments(name, torch.float16, generator))
    before = given["out"].clone()
    assert not torch.equal(convolve_pixels_(**given), before)
    assert bool(given["finite"])
