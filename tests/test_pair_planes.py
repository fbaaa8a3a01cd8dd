"""Convolutions in pair planes against float64 convolutions of the same bf16 values."""

import pytest
import torch
import torch.nn.functional as F

from mga_kernels import _native
from mga_kernels.plans import pairs
from mga_kernels.plans.pairs import Grid, PairConv, Planes

pytestmark = pytest.mark.skipif(pairs.supported() is not None, reason=f"no pair planes here: {pairs.supported()}")

# channels, outputs, height, width, kernel size: odd channels, odd widths, one pixel, blocks of every size
SHAPES = [
    (50, 50, 9, 35, 3),
    (25, 12, 5, 97, 1),
    (3, 50, 7, 16, 3),
    (50, 48, 4, 100, 3),
    (64, 64, 3, 33, 3),
    (50, 1, 5, 40, 3),
    (13, 25, 6, 211, 3),
    (4, 6, 1, 1, 3),
    (104, 50, 2, 17, 1),
    (8, 8, 3, 64, 1),
]


def rounded(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Values that bf16 holds exactly."""
    return (torch.randn(shape) * scale).bfloat16().float()


def planes_of(image: torch.Tensor) -> Planes:
    planes = Planes(*image.shape)
    planes.write(image)
    return planes


def poisoned(channels: int, height: int, width: int) -> Planes:
    planes = Planes(channels, height, width)
    planes.inner().fill_(float("nan"))
    return planes


def assert_border_is_zero(planes: Planes) -> None:
    outside = planes.data.clone()
    outside[:, 1 : 1 + planes.height, pairs.VECTOR : pairs.VECTOR + planes.width] = 0
    assert not outside.any()


def assert_rounded(found: torch.Tensor, exact: torch.Tensor) -> None:
    """Within one rounding to bf16 of sums in float32."""
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(("channels", "outputs", "height", "width", "size"), SHAPES)
def test_convolution_equals_the_definition(channels, outputs, height, width, size):
    torch.manual_seed(0)
    image, bias, shift = rounded(channels, height, width), torch.randn(outputs), torch.randn(outputs)
    weight = rounded(outputs, channels, size, size, scale=(channels * size * size) ** -0.5)
    conv = PairConv(weight, bias, slope=0.05, shift=shift)
    exact = F.conv2d(image[None].double(), weight.double(), bias.double(), padding=size // 2)[0]
    exact = F.leaky_relu(exact, 0.05) - shift.double()[:, None, None]
    x, out = planes_of(image), poisoned(outputs, height, width)
    conv(out, x)
    assert_rounded(out.read(), exact)
    assert_border_is_zero(out)
    planar = torch.full((conv.channels, height, width), float("nan"))
    conv(planar, x)
    torch.testing.assert_close(planar[:outputs].double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", [False, True])
def test_skip_is_added_before_the_activation_or_gated(gate):
    torch.manual_seed(1)
    image, skip = rounded(12, 6, 37), rounded(20, 6, 37)
    weight, bias = rounded(20, 12, 3, 3, scale=0.1), torch.randn(20)
    exact = F.conv2d(image[None].double(), weight.double(), bias.double(), padding=1)[0]
    exact = exact.sigmoid() * skip.double() if gate else F.leaky_relu(exact + skip.double(), 0.2)
    out = poisoned(20, 6, 37)
    PairConv(weight, bias, 1.0 if gate else 0.2)(out, planes_of(image), skip=planes_of(skip), gate=gate)
    assert_rounded(out.read(), exact)


def test_parts_of_planes_are_read_and_written():
    torch.manual_seed(2)
    image, weight, bias = rounded(10, 5, 20), rounded(4, 6, 3, 3), torch.zeros(4)
    out = Planes(12, 5, 20)
    out.inner().fill_(7)
    PairConv(weight, bias)(out, planes_of(image), out_pair=3, x_pair=2)
    exact = F.conv2d(image[None, 4:].double(), weight.double(), padding=1)[0]
    assert_rounded(out.read()[6:10], exact)
    assert (out.read()[:6] == 7).all()
    assert (out.read()[10:] == 7).all()


def test_extreme_sums_pass_the_sigmoid():
    x, skip = Planes(2, 1, 4), planes_of(torch.ones(2, 1, 4))
    x.write(torch.tensor([[[-1e4, -30.0, 30.0, 1e4]]]).repeat(2, 1, 1))
    weight = torch.eye(2)[..., None, None]
    out = poisoned(2, 1, 4)
    PairConv(weight, torch.zeros(2))(out, x, skip=skip, gate=True)
    torch.testing.assert_close(
        out.read()[0, 0], torch.tensor([0.0, 9.357622968840175e-14, 1.0, 1.0]), atol=1e-15, rtol=0.01
    )


@pytest.mark.parametrize(("side", "count", "across"), [(6, 5, 3), (4, 1, 32), (10, 33, 32)])
def test_patches_in_a_grid_do_not_see_each_other(side, count, across):
    torch.manual_seed(3)
    p = side - 2
    feature = rounded(6, 4 * p, 9 * p)
    indices = torch.randperm(36)[:count].sort().values.int()[None]
    grid, inner = Grid(count, side, across), Grid(count, side, across, inset=1)
    tiles = Planes(6, grid.height, grid.width)
    torch.ops.mga.pair_gather_(tiles.data, planes_of(feature).data, 3, 4 * p, 9 * p, indices, p, 1, across)
    padded = F.pad(feature, (1, 1, 1, 1))
    expected = torch.stack([padded[:, i // 9 * p :, i % 9 * p :][:, :side, :side] for i in indices[0].tolist()])
    found = grid.patches(tiles, 0, 3).flatten(2, 3).flatten(0, 1)[:count]
    assert torch.equal(found.float(), expected)

    weight, bias = rounded(6, 6, 3, 3, scale=0.2), torch.randn(6)
    out, cropped = Planes(6, grid.height, grid.width), Planes(6, grid.height, grid.width)
    PairConv(weight, bias)(out, tiles, grid=grid)
    exact = F.conv2d(expected.double(), weight.double(), bias.double(), padding=1)
    assert_rounded(grid.patches(out, 0, 3).flatten(2, 3).flatten(0, 1)[:count].float(), exact)
    PairConv(weight, bias)(cropped, tiles, grid=inner)
    found = grid.patches(cropped, 0, 3).flatten(2, 3).flatten(0, 1)[:count].float()
    assert_rounded(found[..., 1:-1, 1:-1], exact[..., 1:-1, 1:-1])
    found[..., 1:-1, 1:-1] = 0
    assert not found.any()


@pytest.mark.parametrize(
    ("height", "width", "size", "step"), [(30, 33, 7, 3), (15, 15, 7, 3), (6, 6, 1, 1), (9, 4, 1, 1)]
)
def test_pool_is_a_strided_convolution_and_a_maximum(height, width, size, step):
    torch.manual_seed(4)
    image = rounded(5, height, width)
    found = torch.ops.mga.pair_pool(planes_of(image).data, 0, 3, height, width, size, step)
    expected = F.max_pool2d(image[None, :, 1:-1:2, 1:-1:2], size, step)[0]
    assert torch.equal(found[:5], expected)


@pytest.mark.parametrize(
    ("small", "large"), [((3, 5), (17, 40)), ((1, 1), (6, 6)), ((9, 7), (30, 33)), ((4, 4), (2, 3))]
)
def test_interpolation_is_bilinear(small, large):
    torch.manual_seed(5)
    image = torch.randn(6, *small)
    out = poisoned(6, *large)
    torch.ops.mga.pair_interpolate_(out.data, 0, image, *large)
    exact = F.interpolate(image[None].double(), size=large, mode="bilinear", align_corners=False)[0]
    assert_rounded(out.read(), exact)
    assert_border_is_zero(out)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsampling_ends_in_bytes(scale):
    torch.manual_seed(6)
    feature = rounded(10, 5, 37)
    weight, bias = rounded(3 * scale**2, 10, 3, 3, scale=0.1), torch.full((3 * scale**2,), 0.5)
    conv = PairConv(weight, bias)
    image = torch.full((5 * scale + 2, 37 * scale + 3, 3), 99, dtype=torch.uint8)
    target = image[: 5 * scale, : 37 * scale]
    torch.ops.mga.pair_upsample_(target, planes_of(feature).data, 5, conv.weight, conv.ends, 5, 37, scale, 1.0)
    exact = F.pixel_shuffle(F.conv2d(feature[None].double(), weight.double(), bias.double(), padding=1), scale)[0]
    exact = (exact.clamp(0, 1) * 255).permute(1, 2, 0)
    assert (target.double() - exact).abs().max() <= 0.5 + 1e-3
    assert (image[5 * scale :] == 99).all()
    assert (image[:, 37 * scale :] == 99).all()


def test_wrong_calls_are_refused():
    conv, x = PairConv(torch.zeros(4, 6, 3, 3), torch.zeros(4)), Planes(6, 5, 20)
    for out in (Planes(4, 4, 20), Planes(2, 5, 20), torch.empty(4, 5, 19)):
        with pytest.raises(RuntimeError, match="pair_conv_: out"):
            conv(out, x)
    with pytest.raises(RuntimeError, match="pair_conv_: x has 2 pairs, not 3"):
        conv(Planes(4, 5, 20), Planes(4, 5, 20))
    with pytest.raises(RuntimeError, match="pair_gather_: index 4 is outside the 2x2 grid"):
        torch.ops.mga.pair_gather_(
            Planes(2, 6, 6).data, Planes(2, 8, 8).data, 1, 8, 8, torch.tensor([[4]], dtype=torch.int32), 4, 1, 1
        )


def test_a_processor_without_the_instructions_is_told(monkeypatch):
    monkeypatch.setattr(_native, "LIBRARY_ERROR", "the native library is not built")
    assert pairs.supported() == "the native library is not built"
