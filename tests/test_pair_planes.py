"""Convolutions in pair planes against float64 convolutions of the same bf16 values."""

import pytest
import torch
import torch.nn.functional as F
from pair_layers import assert_border_is_zero, assert_rounded, convolve, planes_of, poisoned, rounded
from torch import nn

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.runtimes.cpu import choose, pairs
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.pairs import Grid, Planes, to_bfloat16_with_sums

# channels, outputs, height, width, kernel size: odd channels, odd widths, one pixel, blocks of every size
SHAPES = [
    (50, 50, 9, 35, 3),
    (25, 12, 5, 97, 1),
    (3, 50, 7, 16, 3),
    (50, 48, 4, 100, 3),
    (64, 64, 3, 33, 3),
    (50, 1, 5, 40, 3),
    (24, 3, 5, 130, 3),
    (13, 25, 6, 211, 3),
    (4, 6, 1, 1, 3),
    (104, 50, 2, 17, 1),
    (8, 8, 3, 64, 1),
    (3, 56, 6, 30, 5),
    (10, 3, 12, 100, 9),
    (3, 10, 3, 2, 9),
]


@pytest.mark.parametrize(("channels", "outputs", "height", "width", "size"), SHAPES)
def test_convolution_equals_the_definition(channels, outputs, height, width, size):
    torch.manual_seed(0)
    image, bias, shift = rounded(channels, height, width), torch.randn(outputs), torch.randn(outputs)
    weight = rounded(outputs, channels, size, size, scale=(channels * size * size) ** -0.5)
    exact = F.conv2d(image[None].double(), weight.double(), bias.double(), padding=size // 2)[0]
    exact = F.leaky_relu(exact, 0.05) - shift.double()[:, None, None]
    x, out = planes_of(image), poisoned(outputs, height, width)
    convolve(Conv(weight, bias, slope=0.05, shift=shift), x, out)
    assert_rounded(out.read(), exact)
    assert_border_is_zero(out)
    conv = Conv(weight, bias, slope=0.05, shift=shift, floats=True)
    channels = pairs.pack(conv).epilogue.shape[1]
    planar = torch.full((channels, height, width), float("nan"))
    assert channels == outputs or outputs > 3
    convolve(conv, x, planar)
    torch.testing.assert_close(planar[:outputs].double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slope", ["one", "of each channel"])
@pytest.mark.parametrize("enlarged", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(("channels", "outputs", "height", "width"), [(10, 24, 5, 37), (3, 64, 1, 1), (7, 2, 4, 16)])
def test_larger_images(channels, outputs, height, width, factor, enlarged, slope):
    """A pixel shuffle, and a convolution of what was enlarged by repetition: its zeros lie beyond the large image."""
    torch.manual_seed(1)
    image = rounded(channels, height, width)
    conv = nn.Conv2d(channels, outputs if enlarged else outputs * factor**2, 3, padding=1, dtype=torch.float64)
    # Multiples of 1/64, so that their sums are exact in bf16.
    conv.weight.data = (conv.weight.data * 64).round() / 64
    if slope == "one":
        slopes = torch.full((conv.out_channels,), 0.2)
    else:
        slopes = torch.rand(outputs).repeat_interleave(conv.out_channels // outputs)
    if enlarged:
        exact = conv(F.interpolate(image[None].double(), scale_factor=factor, mode="nearest"))
        layer = Conv.of_enlarged(conv, factor, 0.2)
        slopes = torch.full((outputs,), 0.2)
    else:
        exact = F.pixel_shuffle(conv(image[None].double()), factor)
        layer = Conv.of(conv, slopes, shuffle=factor)
        slopes = slopes[:: factor**2]
    exact = F.prelu(exact, slopes.double())[0].detach()
    out = poisoned(outputs, factor * height, factor * width)
    convolve(layer, planes_of(image), out)
    assert_rounded(out.read(), exact)
    assert_border_is_zero(out)


@pytest.mark.parametrize(("side", "count", "across"), [(6, 5, 3), (4, 1, 32), (10, 33, 32)])
def test_patches_in_a_grid_do_not_see_each_other(side, count, across):
    torch.manual_seed(3)
    p = side - 2
    feature = rounded(6, 4 * p, 9 * p)
    indices = torch.randperm(36)[:count].sort().values.int()[None]
    grid = Grid(count, (side, side), across)
    tiles = Planes(6, grid.height, grid.width)
    ops.pair_gather_(tiles.data, planes_of(feature).data, 3, 4 * p, 9 * p, indices, p, 1, across)
    padded = F.pad(feature, (1, 1, 1, 1))
    expected = torch.stack([padded[:, i // 9 * p :, i % 9 * p :][:, :side, :side] for i in indices[0].tolist()])
    found = grid.patches(tiles, 0, 3).flatten(2, 3).flatten(0, 1)[:count]
    assert torch.equal(found.float(), expected)

    weight, bias = rounded(6, 6, 3, 3, scale=0.2), torch.randn(6)
    out, cropped = Planes(6, grid.height, grid.width), Planes(6, grid.height, grid.width)
    convolve(Conv(weight, bias), tiles, out, grid)
    exact = F.conv2d(expected.double(), weight.double(), bias.double(), padding=1)
    assert_rounded(grid.patches(out, 0, 3).flatten(2, 3).flatten(0, 1)[:count].float(), exact)
    convolve(Conv(weight, bias), tiles, cropped, grid, crop=True)
    found = grid.patches(cropped, 0, 3).flatten(2, 3).flatten(0, 1)[:count].float()
    assert_rounded(found[..., 1:-1, 1:-1], exact[..., 1:-1, 1:-1])
    found[..., 1:-1, 1:-1] = 0
    assert not found.any()


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize(
    ("side", "count", "across", "channels"), [(6, 5, 3, 8), (10, 1, 32, 5), (18, 37, 32, 6), (20, 1, 1, 4)]
)
def test_values_of_their_own_for_each_patch(side, count, across, channels, skipped):
    torch.manual_seed(9)
    grid = Grid(count, (side, side), across)
    patches, skip = rounded(2, grid.down * across, channels, side, side)
    x, other = Planes(channels, grid.height, grid.width), Planes(channels, grid.height, grid.width)
    for planes, values in ((x, patches), (other, skip)):
        cells = F.pad(values, (0, 0, 0, 0, 0, channels % 2)).unflatten(1, (-1, 2)).unflatten(0, (grid.down, across))
        grid.patches(planes, 0, x.groups).copy_(cells)
    exact = patches[:count].double()
    sums = torch.stack([exact.sum(dim=(2, 3)), exact.square().sum(dim=(2, 3))])
    torch.testing.assert_close(x.statistics(grid).double(), sums, rtol=1e-5, atol=1e-4)

    factors, offsets = torch.randn(2, count, channels)
    exact = exact * factors[..., None, None] + offsets[..., None, None] + (skip[:count] if skipped else 0)
    x.rescale(grid, x, factors, offsets, other if skipped else None, 0.2)
    found = grid.patches(x, 0, x.groups).flatten(2, 3).flatten(0, 1)[:count, :channels].float()
    assert_rounded(found, F.leaky_relu(exact, 0.2))
    grid.patches(x, 0, x.groups).zero_()
    assert not x.data.any(), "something was written between the patches"


@pytest.mark.parametrize(
    ("height", "width", "size", "step"), [(30, 33, 7, 3), (15, 15, 7, 3), (6, 6, 1, 1), (9, 4, 1, 1)]
)
def test_pool_is_a_strided_convolution_and_a_maximum(height, width, size, step):
    torch.manual_seed(4)
    image = rounded(5, height, width)
    found = ops.pair_pool(planes_of(image).data, 0, 3, height, width, size, step)
    expected = F.max_pool2d(image[None, :, 1:-1:2, 1:-1:2], size, step)[0]
    assert torch.equal(found[:5], expected)


@pytest.mark.parametrize(
    ("small", "large"), [((3, 5), (17, 40)), ((1, 1), (6, 6)), ((9, 7), (30, 33)), ((4, 4), (2, 3))]
)
def test_interpolation_is_bilinear(small, large):
    torch.manual_seed(5)
    image = torch.randn(6, *small)
    out = poisoned(6, *large)
    ops.pair_interpolate_(out.data, 0, image, *large)
    exact = F.interpolate(image[None].double(), size=large, mode="bilinear", align_corners=False)[0]
    assert_rounded(out.read(), exact)
    assert_border_is_zero(out)


def test_wrong_calls_are_refused():
    conv, x = Conv(torch.zeros(4, 6, 3, 3)), Planes(6, 5, 20)
    for out in (Planes(4, 4, 20), Planes(2, 5, 20), torch.empty(4, 5, 19), torch.empty(6, 5, 20)):
        with pytest.raises(InputError, match="pair_chain_: "):
            convolve(conv, x, out)
    with pytest.raises(InputError, match="pair_chain_: stage 0 reads or writes outside of its slots"):
        convolve(conv, Planes(4, 5, 20), Planes(4, 5, 20))
    with pytest.raises(InputError, match=r"no square kernel with an even number of channels \(or 1 or 3\) times s\^2"):
        pairs.pack(Conv(torch.zeros(4 * 5, 6, 3, 3), shuffle=3))
    with pytest.raises(InputError, match="pair_gather_: index 4 is outside the 2x2 grid"):
        ops.pair_gather_(
            Planes(2, 6, 6).data, Planes(2, 8, 8).data, 1, 8, 8, torch.tensor([[4]], dtype=torch.int32), 4, 1, 1
        )


def test_a_processor_without_the_instructions_is_told(monkeypatch):
    monkeypatch.setattr(_native, "LIBRARY_ERROR", "the native library is not built")
    assert choose.supported() == "the native library is not built"


def test_kernels_in_bf16_keep_their_sums():
    weight = torch.randn(12, 7, 5, 5, generator=torch.Generator().manual_seed(0))
    kept, plain = to_bfloat16_with_sums(weight), weight.bfloat16()
    assert kept.dtype == torch.bfloat16
    assert kept.is_contiguous()

    def moved(values):
        return (values.double() - weight.double()).sum((2, 3)).square().mean().sqrt()

    assert moved(kept) < 0.3 * moved(plain)
    assert (kept.double() - weight).abs().max() < 2**-7 * weight.abs().max(), "no tap is moved far"
    assert torch.equal(to_bfloat16_with_sums(weight[..., :1, :1]), plain[..., :1, :1])
