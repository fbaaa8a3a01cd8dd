"""The Triton kernels against the definitions. test_triton_kernels.py runs this file, in a process of its own.

With TRITON_INTERPRET=1 the kernels run on the CPU, one program after another; else on a GPU. The interpreter computes
wrongly in bfloat16 and truncates to it, so sums in bfloat16 are left to the GPU; copies and bytes are right everywhere.
Its minimum and maximum keep NaN, which those of a GPU lose, so that only a GPU shows whether a kernel avoids them.

Every dtype, stride and size is a kernel of its own, which a GPU has to compile first: 2,000 of them, 15 minutes of one
core. So a GPU gets the third of the cases that the interpreter gets, unless MGA_ALL_TRITON_CASES is set.
"""

import itertools
import os

import pytest
import test_gather_patches as gather_tests
import test_paste_patches as paste_tests
import torch
from test_mask_head import arguments as mask_head_arguments

from mga_kernels import ops
from mga_kernels.modes import exact_float32
from mga_kernels.ops import (
    dynamic_filter,
    gather_patches,
    image_to_input,
    mask_head,
    output_to_image,
    paste_patches_,
)

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
FEW = INTERPRETING or not os.environ.get("MGA_ALL_TRITON_CASES")
DEVICE = "cpu" if INTERPRETING else "cuda"
FLOATS = [torch.float32, torch.float16] if INTERPRETING else [torch.float32, torch.float16, torch.bfloat16]
ORDERS = ["softmax-then-pool", "pool-then-softmax"]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def combined(**axes):
    """Parametrizes by all combinations, or by ``FEW``: a half or a third of them.

    Then every value of an axis meets some values of the other, and of three axes every two values meet. Within a case,
    likewise, what strides have nothing to do with is tried with one of them.
    """
    kept = min(3, *map(len, axes.values())) if FEW else 1
    numbered = itertools.product(*map(enumerate, axes.values()))
    values = [[v for _, v in each] for each in numbered if sum(i for i, _ in each) % kept == 0]
    return pytest.mark.parametrize(list(axes), values)


@pytest.fixture(autouse=True)
def poisoned_outputs(monkeypatch):
    """Triton is forced, and memory that a launcher allocates holds NaN, or the largest integer, until written."""
    monkeypatch.setenv("MGA_BACKEND", "triton")
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(deterministic)


def random(shape, dtype, generator, scale=1.0):
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def some_cells(batch, cells, count, generator):
    order = torch.stack([torch.randperm(cells, generator=generator) for _ in range(batch)])
    return order[:, :count].int()


def guarded(tensor):
    """The same values and strides on the device, with NaN or 99 in memory before, between and after them."""
    poison = torch.nan if tensor.is_floating_point() else 99
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = torch.full((reach + 128,), poison, dtype=tensor.dtype, device=DEVICE)
    return memory[64:].as_strided(tensor.shape, tensor.stride(), memory[64:].storage_offset()).copy_(tensor)


def views(tensor):
    """The same values under several strides, each between poison."""
    wide = torch.empty(*tensor.shape[:-1], tensor.shape[-1] + 3, dtype=tensor.dtype)[..., 1:-2]
    thick = tensor.new_empty(tensor.shape[0], tensor.shape[2], tensor.shape[3], tensor.shape[1] + 1)
    kinds = {
        "contiguous": tensor.contiguous(),
        "channels-last": tensor.contiguous(memory_format=torch.channels_last),
        "transposed": tensor.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": wide.copy_(tensor),
        "sliced channels-last": thick[..., 1:].permute(0, 3, 1, 2).copy_(tensor),
    }
    return {name: guarded(view) for name, view in kinds.items()}


def definition(op, *arguments):
    """The reference in float64."""
    wide = (a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments)
    return ops.operators()[op].backends["reference"].run(*wide)


def check_error(op, got, arguments, name=""):
    """No more than twice the error that torch's own kernels make in the same dtype."""
    assert ops.last_backend(op) == "triton"
    wanted = definition(op, *arguments)
    with exact_float32:  # torch's own would be in TF32 on a GPU
        own = ops.operators()[op].backends["reference"].run(*arguments)
    assert got.dtype == own.dtype
    assert not got.isnan().any(), name
    error, allowed = (float((x.double() - wanted).abs().max()) for x in (got, own))
    ulps = 16 if own.dtype == torch.float64 else 0.25  # in float64 the definition is as inexact as the kernel
    tiny = ulps * torch.finfo(arguments[0].dtype).eps * float(wanted.abs().max())
    assert error <= 2 * allowed + tiny, f"{name}: {error} where torch has {allowed}"


@combined(
    dtype=FLOATS,
    sizes=[
        ((1, 3, 4, 4), 3, 4, 2, ORDERS[0]),
        ((2, 12, 12, 8), 12, 4, 2, ORDERS[1]),
        ((1, 50, 10, 8), 50, 2, 1, ORDERS[0]),
        ((1, 64, 8, 16), 64, 8, 2, ORDERS[0]),
        ((1, 40, 9, 15), 70, 3, 2, ORDERS[0]),
        ((1, 1, 5, 3), 2, 1, 2, ORDERS[1]),
        ((1, 2, 14, 28), 2, 14, 1, ORDERS[0]),
    ],
)
def test_mask_head(sizes, dtype, generator):
    shape, hidden, p, classes, order = sizes
    channels = shape[1]
    shapes = (hidden, channels, 3, 3), (hidden,), (classes, hidden, 3, 3), (classes,)
    weights = [random(s, dtype, generator, 1 / s[1] ** 0.5 / 3 if len(s) == 4 else 1) for s in shapes]
    weights = [guarded(weight) for weight in weights]
    for name, view in views(random(shape, dtype, generator)).items():
        check_error("mask_head", mask_head(view, *weights, p, order), (view, *weights, p, order), name)
        if FEW and channels > 3 and name == "channels-last":
            break


def test_mask_head_keeps_nan_and_the_border(generator):
    """NaN in one corner reaches the cells that see it and no other, and hidden pixels outside the image are zero."""
    feature, *weights = (t.float().to(DEVICE) for t in mask_head_arguments((1, 3, 12, 24), 2, generator))
    feature[0, 1, 0, 0] = torch.nan
    got = mask_head(feature, *weights, 4, ORDERS[0])
    assert got.isnan().nonzero().tolist() == [[0, 0, 0]]
    feature.zero_()
    weights[1].fill_(1.0)
    check_error("mask_head", mask_head(feature, *weights, 4, ORDERS[0]), (feature, *weights, 4, ORDERS[0]))


@combined(dtype=[*FLOATS, torch.float64], sizes=[((1, 1, 1), 1, 5), ((3, 7, 9), 1, 5), ((2, 6, 11), 12, 3)])
def test_dynamic_filter(sizes, dtype, generator):
    shape, channels, n = sizes
    probability = guarded(torch.rand(shape, generator=generator).to(dtype).transpose(1, 2).contiguous().transpose(1, 2))
    source = probability[:, None]
    if channels > 1:
        source = random((shape[0], channels, *shape[1:]), dtype, generator).to(DEVICE)
    weights = random((n * n, channels, 1, 1), dtype, generator), random((n * n,), dtype, generator)
    arguments = (probability, source, *(weight.to(DEVICE) for weight in weights))
    check_error("dynamic_filter", dynamic_filter(*arguments), arguments)


@combined(
    dtype=gather_tests.DTYPES,
    sizes=[
        ((1, 1, 1, 1), 1, 1),
        ((2, 5, 8, 12), 4, 1),
        ((1, 64, 8, 8), 4, 1),
        ((2, 50, 8, 4), 2, 0),
        ((1, 6, 9, 6), 3, 7),
    ],
)
def test_gather_patches(sizes, dtype, generator):
    shape, p, halo = sizes
    feature = gather_tests.feature_of(shape, dtype, generator)
    cells = shape[2] // p * (shape[3] // p)
    for count in {cells, 1}:
        indices = some_cells(shape[0], cells, count, generator)
        wanted = gather_tests.expected(feature, indices, p, halo)
        for name, view in views(feature).items():
            if FEW and count < cells and name != "contiguous":
                continue
            got = gather_patches(view, indices.to(DEVICE), p, halo)
            assert ops.last_backend("gather_patches") == "triton"
            torch.testing.assert_close(got.cpu(), wanted, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
            last = shape[1] > 1 and view.stride(1) == 1
            layout = torch.channels_last if last else torch.contiguous_format
            assert got.is_contiguous(memory_format=layout), name


@combined(
    dtype=paste_tests.DTYPES,
    sizes=[
        ((1, 1, 1, 1), 1, 1),
        ((1, 3, 16, 32), 16, 1),
        ((3, 3, 8, 24), 8, 2),
        ((2, 8, 9, 6), 3, 5),
        ((1, 1, 40, 40), 40, 1),
    ],
)
def test_paste_patches(sizes, dtype, generator):
    shape, side, count = sizes
    image = paste_tests.values(shape, dtype, generator)
    patches = paste_tests.values((shape[0] * count, shape[1], side, side), dtype, generator)
    indices = some_cells(shape[0], shape[2] // side * (shape[3] // side), count, generator)
    wanted = paste_tests.expected(image, patches, indices)
    sources = {**views(patches), "expanded": patches[:, :, :1, :1].expand(patches.shape).to(DEVICE)}
    for image_name, target in views(image).items():
        for name, source in sources.items():
            if FEW and image_name != name and (image_name, name) != ("channels-last", "expanded"):
                continue
            target.copy_(image)
            assert paste_patches_(target, source, indices.to(DEVICE)) is target
            assert ops.last_backend("paste_patches_") == "triton"
            right = wanted if name != "expanded" else paste_tests.expected(image, source.cpu(), indices)
            assert torch.equal(target.cpu(), right), (image_name, name)


def test_paste_leaves_what_lies_between_pixels():
    whole = torch.full((1, 6, 11, 16), 99.0, device=DEVICE)
    image = whole[:, ::2, 1:9, ::2]
    paste_patches_(image, torch.zeros(2, 3, 4, 4, device=DEVICE), torch.tensor([[0, 3]], dtype=torch.int32).to(DEVICE))
    assert (image == 0).sum() == 2 * 3 * 16
    assert (whole == 0).sum() == 2 * 3 * 16


def test_bytes_are_rounded_half_to_even_and_products_one_by_one():
    """Every float16 in 0..1 and the neighbours of every half, where one rounding instead of two would show."""
    halves = torch.arange(1, 510, 2) / 510
    around = torch.stack([halves, torch.nextafter(halves, halves + 1), torch.nextafter(halves, halves - 1)])
    values = torch.cat([around.flatten(), torch.arange(0x3C01, dtype=torch.int16).view(torch.float16).float()])
    values = values[: len(values) // 3 * 3].reshape(1, 3, 1, -1)
    for gain in (1.0, 1 / 255):
        output = (values / gain).to(DEVICE)
        wanted = ops.operators()["output_to_image"].backends["reference"].run(output, 1, output.shape[3], gain)
        assert torch.equal(output_to_image(output, 1, output.shape[3], gain), wanted)


def byte_images(shape, generator):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return {
        "packed": guarded(image),
        "planar": guarded(image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)),
        "sliced": guarded(torch.empty(*shape[:2], shape[2] + 1, 4, dtype=torch.uint8)[:, :, 1:, :3].copy_(image)),
    }


SIZES = [((1, 1), (1, 1)), ((1, 3), (8, 12)), ((5, 7), (23, 40)), ((2, 270), (3, 274)), ((4, 16), (4, 16))]


@combined(dtype=FLOATS, sizes=SIZES)
def test_image_to_input(sizes, dtype, generator):
    size, padded = sizes
    for name, image in byte_images((2, *size, 3), generator).items():
        for value_range in (1.0, 255.0) if name == "packed" or not FEW else (1.0,):
            got = image_to_input(image, *padded, value_range, dtype)
            assert ops.last_backend("image_to_input") == "triton"
            reference = ops.operators()["image_to_input"].backends["reference"].run
            wanted = reference(image, *padded, value_range, dtype)
            torch.testing.assert_close(got, wanted, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
            assert got.is_contiguous(memory_format=torch.channels_last)


@combined(dtype=[torch.float32, torch.float16, torch.bfloat16], sizes=SIZES)
def test_output_to_image(sizes, dtype, generator):
    size, padded = sizes
    output = random((2, 3, *padded), dtype, generator) * 0.5 + 0.5
    output[0, 0, 0, 0], output[0, 1, 0, 0], output[0, 2, 0, 0] = torch.nan, torch.inf, -torch.inf
    for name, view in views(output).items():
        for gain in (1.0, 0.7) if name == "contiguous" or not FEW else (0.7,):
            got = output_to_image(view, *size, gain)
            assert ops.last_backend("output_to_image") == "triton"
            wanted = ops.operators()["output_to_image"].backends["reference"].run(view, *size, gain)
            torch.testing.assert_close(got, wanted, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
            assert got.is_contiguous()


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS.values(), ids=MEMORY_FORMATS)
def test_nothing_selected(memory_format, generator):
    feature = random((2, 3, 8, 8), torch.float32, generator).to(DEVICE).contiguous(memory_format=memory_format)
    before, none = feature.clone(), torch.empty(2, 0, dtype=torch.int32, device=DEVICE)
    assert gather_patches(feature, none, 4, 1).shape == (0, 3, 6, 6)
    paste_patches_(feature, torch.empty(0, 3, 4, 4, device=DEVICE), none)
    assert torch.equal(feature, before)


@pytest.mark.parametrize("bad", [-1, 6, 2**31 - 1, -(2**31)])
def test_an_index_outside_the_grid_gives_zeros_and_is_not_pasted(bad):
    feature = guarded(torch.ones(1, 2, 8, 12))
    indices = torch.tensor([[0, bad, 5]], dtype=torch.int32, device=DEVICE)
    for halo in (0, 3):  # whose halo would see the feature
        patches = gather_patches(feature, indices, 4, halo)
        assert (patches[[0, 2], :, halo : halo + 4, halo : halo + 4] == 1).all()
        assert (patches[1] == 0).all()
    image = torch.ones(1, 1, 8, 12, device=DEVICE)
    paste_patches_(image, torch.zeros(3, 1, 4, 4, device=DEVICE), indices)
    assert (image == 0).sum() == 2 * 16
    assert (image[..., :4, :4] == 0).all()
    assert (image[..., 4:, 8:] == 0).all()


@pytest.fixture
def distant(monkeypatch):
    """``distant(shape, strides, dtype)``: a tensor whose far ends lie beyond 2^31 elements of untouched memory."""
    torch.utils.deterministic.fill_uninitialized_memory = False

    def make(shape, strides, dtype):
        reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        assert reach > 2**31
        return torch.empty(reach, dtype=dtype, device=DEVICE).as_strided(shape, strides)

    yield make
    torch.utils.deterministic.fill_uninitialized_memory = True


FAR = 2**31 - 64  # fits 32 bits, as three times its half does not


@pytest.mark.parametrize("strides", [(FAR, 16, 4, 1), (64, 16, FAR, 1), (64, FAR * 2, 4, 1), (64, 1, 2, FAR)])
def test_offsets_beyond_31_bits(distant, strides, generator):
    values = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8, generator=generator).to(DEVICE)
    tensor = distant((3, 2, 4, 4), strides, torch.uint8).copy_(values)
    indices = torch.tensor([[0, 3], [1, 2], [2, 3]], dtype=torch.int32, device=DEVICE)
    assert torch.equal(gather_patches(tensor, indices, 2, 1), gather_patches(values, indices, 2, 1))
    patches = (255 * torch.rand(6, 2, 2, 2, generator=generator)).to(DEVICE, torch.uint8)
    assert torch.equal(paste_patches_(tensor, patches, indices), paste_patches_(values, patches, indices))


def test_products_beyond_31_bits(distant, generator):
    values = random((1, 16, 4, 4), torch.float16, generator).to(DEVICE)
    feature = distant((1, 16, 4, 4), (0, 1, FAR, 16), torch.float16).copy_(values)
    weights = random((16, 16, 3, 3), torch.float16, generator, 0.1), random((16,), torch.float16, generator)
    weights = [weight.to(DEVICE) for weight in weights]
    last = (
        random((2, 16, 3, 3), torch.float16, generator).to(DEVICE),
        torch.zeros(2, dtype=torch.float16, device=DEVICE),
    )
    near, far = (mask_head(x, *weights, *last, 2, ORDERS[0]) for x in (values, feature))
    assert torch.equal(near, far)


def test_edges_beyond_31_bits(distant, generator):
    values = torch.randint(0, 256, (1, 4, 5, 3), dtype=torch.uint8, generator=generator).to(DEVICE)
    image = distant((1, 4, 5, 3), (0, FAR, 3, 1), torch.uint8).copy_(values)
    near, far = (image_to_input(x, 6, 8) for x in (values, image))
    assert torch.equal(near, far)
    for strides in ((0, FAR, 5, 1), (0, 1, FAR, 3)):
        output = distant((1, 3, 4, 5), strides, torch.float16).copy_(values.permute(0, 3, 1, 2) / 255)
        assert torch.equal(output_to_image(output, 4, 5), values)
