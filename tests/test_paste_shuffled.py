import numpy as np
import pytest
import torch
from operators import far_apart, layouts, run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import paste_patches_, paste_shuffled_

OP = torch.ops.mga.paste_shuffled_.default
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def expected(image, patches, indices, scale, gain):
    """Pixel by pixel: which number of the patch, times gain, clamped, and rounded to the image's type."""
    result = image.detach().clone().contiguous()
    channels, width = image.shape[1], image.shape[3]
    side = patches.shape[-1] * scale
    wide = np.float64 if patches.dtype == torch.float64 else np.float32
    source = patches.detach().double().numpy().astype(wide)
    for n, cell in enumerate(indices.flatten().tolist()):
        row, column = divmod(cell, width // side)
        for c, y, x in np.ndindex(channels, side, side):
            channel = c * scale * scale + y % scale * scale + x % scale
            value = source[n, channel, y // scale, x // scale] * wide(gain)
            value = np.clip(value, wide(0), wide(1))  # NaN stays
            if image.dtype == torch.uint8:
                value = 0 if np.isnan(value) else round(float(value * wide(255)))  # half to even
            number = torch.tensor(float(value), dtype=torch.float64)
            number = number if wide is np.float64 else number.float()
            result[n // indices.shape[1], c, row * side + y, column * side + x] = number.to(image.dtype)
    return result


def image_of(shape, dtype, generator):
    image = torch.rand(shape, generator=generator)
    return (image * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)


def patches_of(count, channels, scale, side, dtype, generator, gain=1.0):
    patches = torch.randn(count, channels * scale**2, side, side, generator=generator, dtype=torch.float64) * 0.5 + 0.5
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-6, 0.5 / 255, 1.5 / 255, 253.5 / 255, 1.0, 3e-8])
    flat = patches.view(-1)
    flat[torch.randperm(len(flat), generator=generator)[: len(odd)]] = odd.double()[: len(flat)]
    return (patches / gain).to(dtype)


def some_cells(batch, cells, count, generator):
    order = torch.stack([torch.randperm(cells, generator=generator) for _ in range(batch)])
    return order[:, :count].int()


def equal(got, wanted):
    return torch.equal(got.cpu().double().nan_to_num(7.0), wanted.double().nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8])
@pytest.mark.parametrize("patch_dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "scale", "side", "count", "gain"),
    [
        ((1, 3, 4, 8), 4, 1, 2, 1.0),
        ((3, 3, 12, 9), 1, 3, 5, 1 / 255),
        ((2, 1, 8, 12), 2, 2, 3, 1.0),
        ((1, 4, 9, 6), 3, 1, 4, 0.5),
        ((1, 3, 1, 1), 1, 1, 1, 1.0),
    ],
)
def test_equals_the_formula(backend, dtype, patch_dtype, shape, scale, side, count, gain, generator):
    cells = shape[2] // (side * scale) * (shape[3] // (side * scale))
    image = image_of(shape, dtype, generator)
    patches = patches_of(shape[0] * count, shape[1], scale, side, patch_dtype, generator, gain)
    indices = some_cells(shape[0], cells, count, generator)
    wanted = expected(image, patches, indices, scale, gain)
    source_layouts = layouts(patches)
    for name, target in layouts(image).items():
        for source_name in ("contiguous", "channels-last", "strided"):
            kept = target.clone(memory_format=torch.preserve_format)
            view = target.to(backend.device)
            got = run("paste_shuffled_", backend, view, source_layouts[source_name], indices, scale, gain)
            assert got.data_ptr() == view.data_ptr()
            assert equal(got, wanted), f"{source_name} patches into a {name} image"
            target.copy_(kept)


def test_bytes_of_a_picture_in_place(backend, generator):
    """The (B, H, W, 3) memory of a picture, seen as (B, 3, H, W)."""
    picture = torch.zeros(2, 32, 48, 3, dtype=torch.uint8, device=backend.device)
    patches = patches_of(12, 3, 4, 4, torch.float32, generator)
    indices = some_cells(2, 6, 6, generator)
    run("paste_shuffled_", backend, picture.permute(0, 3, 1, 2), patches, indices, 4, 1.0)
    zeros = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    assert torch.equal(picture.cpu(), expected(zeros, patches, indices, 4, 1.0).permute(0, 2, 3, 1))


def test_what_is_not_selected_is_left_alone(backend, generator):
    whole = torch.full((1, 6, 16, 24), 99.0)
    image = whole[:, ::2, :, ::2]
    patches = patches_of(1, 3, 2, 2, torch.float32, generator)
    wanted = expected(image, patches, torch.tensor([[4]], dtype=torch.int32), 2, 1.0)
    moved = whole.to(backend.device)
    run("paste_shuffled_", backend, moved[:, ::2, :, ::2], patches, torch.tensor([[4]], dtype=torch.int32), 2, 1.0)
    assert equal(moved[:, ::2, :, ::2], wanted)
    assert (moved[:, 1::2] == 99).all()
    assert (moved[:, :, :, 1::2] == 99).all()


def test_equals_paste_patches_without_shuffle(backend, generator):
    if backend.name not in ops.operators()["paste_patches_"].backends:
        pytest.skip(f"paste_patches_ has no {backend.name} backend")
    patches = torch.rand(6, 3, 4, 4, generator=generator)
    indices = some_cells(2, 6, 3, generator)
    got = run("paste_shuffled_", backend, torch.zeros(2, 3, 8, 12), patches, indices, 1, 1.0)
    moved = (tensor.to(backend.device) for tensor in (torch.zeros(2, 3, 8, 12), patches, indices))
    plain = paste_patches_(*moved)
    assert torch.equal(got, plain)


def test_later_duplicate_stays(backend, generator):
    if backend.name not in ("cpu", "reference"):
        pytest.skip("either may stay there")
    patches = torch.rand(60, 12, 4, 4, generator=generator)
    indices = torch.tensor([[1, 0] * 30], dtype=torch.int32)
    got = run("paste_shuffled_", backend, torch.zeros(1, 3, 8, 16), patches, indices, 2, 1.0)
    assert equal(got, expected(torch.zeros(1, 3, 8, 16), patches[-2:], indices[:, -2:], 2, 1.0))


@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_selected(backend, batch, generator):
    image = torch.rand(batch, 3, 8, 12, generator=generator)
    kept = image.clone()
    run("paste_shuffled_", backend, image, torch.empty(0, 12, 2, 2), torch.empty(batch, 0, dtype=torch.int32), 2, 1.0)
    assert torch.equal(image, kept)


def test_images_far_apart_in_memory(backend, generator):
    if backend.device != "cpu":
        pytest.skip("the trick with untouched pages is for the CPU")
    image = image_of((2, 3, 8, 12), torch.uint8, generator)
    patches, indices = patches_of(6, 3, 2, 2, torch.float32, generator), some_cells(2, 6, 3, generator)
    got = run("paste_shuffled_", backend, far_apart(image), patches, indices, 2, 1.0)
    assert torch.equal(got, expected(image, patches, indices, 2, 1.0))


@pytest.mark.parametrize("bad", [-1, 6, 2**31 - 1])
def test_index_outside_the_grid(backend, bad, generator):
    patches = torch.rand(2, 12, 2, 2, generator=generator)
    indices = torch.tensor([[0, bad]], dtype=torch.int32)
    if backend.device == "cpu":
        with pytest.raises(InputError, match=rf"index {bad} is outside the 2x3 grid.*another size\?$"):
            run("paste_shuffled_", backend, torch.zeros(1, 3, 8, 12), patches, indices, 2, 1.0)
    else:
        got = run("paste_shuffled_", backend, torch.zeros(1, 3, 8, 12), patches, indices, 2, 1.0)
        assert equal(got, expected(torch.zeros(1, 3, 8, 12), patches[:1], indices[:, :1], 2, 1.0))


def test_autograd_notices_that_the_image_changed(free_choice, generator):
    weight = torch.ones(1, 3, 4, 4, requires_grad=True)
    image = torch.rand(1, 3, 4, 4, generator=generator)
    product = (weight * image).sum()
    paste_shuffled_(image, torch.rand(1, 12, 2, 2), torch.zeros(1, 1, dtype=torch.int32), 2)
    assert ops.last_backend("paste_shuffled_") == "cpu"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_opcheck(backend, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    image, patches = torch.rand(2, 3, 8, 12), torch.rand(6, 12, 2, 2)
    indices = some_cells(2, 6, 3, generator)
    run("paste_shuffled_", backend, image, patches, indices, 2, 1.0)
    given = (image.to(backend.device), patches.to(backend.device), indices.to(backend.device), 2, 1.0)
    assert set(torch.library.opcheck(OP, given).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    patches, indices = torch.rand(6, 12, 2, 2, generator=generator), some_cells(2, 6, 3, generator)
    wanted = run("paste_shuffled_", backend, torch.zeros(2, 3, 8, 12), patches, indices, 2, 1.0)
    compiled = torch.compile(
        lambda i, p, n: paste_shuffled_(i + 0, p, n, 2) + 1, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    got = compiled(torch.zeros(2, 3, 8, 12, device=backend.device), *(t.to(backend.device) for t in (patches, indices)))
    assert torch.equal(got, wanted + 1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("paste_shuffled_", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        image = torch.empty(2, 3, 8, 12, device=device, dtype=torch.uint8)
        indices = torch.empty(2, 3, dtype=torch.int32, device=device)
        assert paste_shuffled_(image, torch.empty(6, 12, 2, 2, device=device), indices, 2) is image
    assert ops.last_backend("paste_shuffled_") == device


IMAGE, PATCHES, INDICES = torch.zeros(1, 3, 8, 12), torch.zeros(2, 12, 2, 2), torch.zeros(1, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[0], PATCHES, INDICES, 2), r"image must be a floating or uint8 tensor \(B, C, H, W\), got \(3, 8, 12\)"),
        ((IMAGE.int(), PATCHES, INDICES, 2), "image must be a floating or uint8 tensor"),
        ((IMAGE, PATCHES.byte(), INDICES, 2), "patches must be a floating tensor"),
        ((IMAGE, PATCHES, INDICES, 0), "scale must be a whole number of 1 or more, got 0"),
        ((IMAGE, PATCHES, INDICES, 3), r"patches must be \(2, 27, m, m\), got \(2, 12, 2, 2\)"),
        ((IMAGE, PATCHES[:1], INDICES, 2), r"patches must be \(2, 12, m, m\), got \(1, 12, 2, 2\)"),
        ((IMAGE, PATCHES[..., :1], INDICES, 2), r"patches must be \(2, 12, m, m\)"),
        ((IMAGE[..., :10], PATCHES, INDICES, 2), "a 8x10 image does not divide into cells of 4x4"),
        ((IMAGE[:, :1].expand(1, 3, 8, 12), PATCHES, INDICES, 2), "the image is an expanded tensor"),
        ((IMAGE, PATCHES, INDICES.long(), 2), "indices must be int32"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        paste_shuffled_(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (IMAGE[0], PATCHES, INDICES, 2, 1.0),
        (IMAGE.int(), PATCHES, INDICES, 2, 1.0),
        (IMAGE, PATCHES.byte(), INDICES, 2, 1.0),
        (IMAGE, PATCHES, INDICES, 3, 1.0),
        (IMAGE, PATCHES, INDICES, 0, 1.0),
        (IMAGE[..., :10], PATCHES, INDICES, 2, 1.0),
        (IMAGE, PATCHES, INDICES + 6, 2, 1.0),
    ],
)
def test_the_torch_operator_checks_by_itself(arguments):
    with pytest.raises(RuntimeError, match="paste_shuffled_: "):
        OP(*arguments)
