import numpy as np
import pytest
import torch
from operators import far_apart, layouts
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import gather_patches, paste_patches_

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]
OP = torch.ops.mga.paste_patches_.default


def expected(image, patches, indices):
    """The slice formula in numpy and float64; patches in the order of the list."""
    result = image.detach().cpu().double().numpy().copy()
    side = patches.shape[-1]
    source = patches.detach().cpu().double().numpy()
    for n, cell in enumerate(indices.flatten().tolist()):
        row, column = divmod(cell, image.shape[3] // side)
        rows, columns = np.s_[row * side : (row + 1) * side], np.s_[column * side : (column + 1) * side]
        result[n // indices.shape[1], :, rows, columns] = source[n]
    return torch.from_numpy(result).to(image.dtype)


def values(shape, dtype, generator):
    return (100 * torch.rand(shape, generator=generator)).to(dtype)


def run(backend, image, patches, indices):
    returned = paste_patches_(image, patches, indices.to(image.device))
    assert ops.last_backend("paste_patches_") == backend.name
    assert returned is image
    return image


def some_cells(batch, cells, count, generator):
    order = torch.stack([torch.randperm(cells, generator=generator) for _ in range(batch)])
    return order[:, :count].int()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "side", "count"),
    [
        ((1, 1, 1, 1), 1, 1),
        ((1, 3, 16, 16), 16, 1),
        ((3, 3, 24, 40), 8, 9),
        ((2, 4, 15, 9), 3, 15),
        ((1, 3, 2, 64), 2, 5),
    ],
)
def test_equals_the_formula(backend, dtype, shape, side, count, generator):
    image = values(shape, dtype, generator)
    patches = values((shape[0] * count, shape[1], side, side), dtype, generator)
    indices = some_cells(shape[0], shape[2] // side * (shape[3] // side), count, generator)
    wanted = expected(image, patches, indices)
    for image_layout, target in layouts(image.to(backend.device)).items():
        for patch_layout, source in layouts(patches.to(backend.device)).items():
            target.copy_(image)
            got = run(backend, target, source, indices)
            torch.testing.assert_close(
                got.cpu(), wanted, rtol=0, atol=0, msg=lambda m, n=(image_layout, patch_layout): f"{n}: {m}"
            )


def test_what_lies_between_strided_pixels_is_left_alone(backend, generator):
    whole = torch.full((1, 6, 11, 16), 99.0, device=backend.device)
    image = whole[:, ::2, 1:9, ::2]
    run(backend, image, torch.zeros(2, 3, 4, 4, device=backend.device), torch.tensor([[0, 3]], dtype=torch.int32))
    assert (image == 0).sum() == 2 * 3 * 16
    image.fill_(99.0)
    assert (whole == 99).all()


def test_images_far_apart_in_memory(backend, generator):
    if backend.device != "cpu":
        pytest.skip("the trick with untouched pages is for the CPU")
    image, patches = values((2, 3, 8, 12), torch.uint8, generator), values((6, 3, 4, 4), torch.uint8, generator)
    indices = some_cells(2, 6, 3, generator)
    pasted = run(backend, far_apart(image), patches, indices)
    assert torch.equal(pasted, expected(image, patches, indices))


def test_later_duplicate_stays(backend, generator):
    if backend.name == "cuda":
        pytest.skip("not defined there: patches are written in parallel")
    # The list goes over the cells and back, so that threads which share it meet the same cell at different times.
    image = values((1, 3, 768, 768), torch.float32, generator)
    patches = values((2 * 2304, 3, 16, 16), torch.float32, generator)
    there = torch.randperm(2304, generator=generator, dtype=torch.int32)
    indices = torch.cat([there, there.flip(0)])[None]
    wanted = expected(image, patches, indices)
    for _ in range(20):  # a race shows in some runs only
        assert torch.equal(run(backend, image.clone(), patches, indices), wanted)


def test_gather_then_paste_restores_the_image(backend, generator):
    image = values((2, 3, 12, 20), torch.float32, generator).to(backend.device)
    indices = torch.arange(15, dtype=torch.int32, device=backend.device).repeat(2, 1)
    target = torch.full_like(image, torch.nan)
    assert torch.equal(run(backend, target, gather_patches(image, indices, 4, 0), indices), image)


def test_enough_work_for_several_threads(backend, generator):
    """Every cell of a large image, in no order, some of them twice."""
    image = values((2, 4, 512, 640), torch.float32, generator).to(backend.device)
    cells = 64 * 80
    order = some_cells(2, cells, cells, generator).to(backend.device)
    patches = gather_patches(image, order, 8, 0)
    target = torch.full_like(image, torch.nan)
    assert torch.equal(run(backend, target, patches, order), image)
    if backend.name in ("cpu", "reference"):
        twice = torch.cat([order, order], dim=1)
        both = torch.cat([torch.zeros_like(patches), patches]).unflatten(0, (2, 2, cells)).transpose(0, 1).flatten(0, 2)
        assert torch.equal(run(backend, torch.full_like(image, torch.nan), both, twice), image)


def test_nothing_selected(backend, generator):
    image = values((2, 3, 8, 8), torch.float32, generator).to(backend.device)
    before = image.clone()
    empty = torch.empty(0, 3, 4, 4, device=backend.device), torch.empty(2, 0, dtype=torch.int32)
    assert torch.equal(run(backend, image, *empty), before)


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_index_outside_the_grid(backend, bad):
    image = torch.ones(1, 1, 8, 8, device=backend.device)
    patches = torch.zeros(2, 1, 4, 4, device=backend.device)
    indices = torch.tensor([[1, bad]], dtype=torch.int32, device=backend.device)
    if backend.device == "cpu":
        with pytest.raises(InputError, match=rf"^paste_patches_: index {bad} is outside the 2x2 grid.*another size\?$"):
            paste_patches_(image, patches, indices)
        assert (image == 1).all()
    else:
        paste_patches_(image, patches, indices)
        assert int((image == 0).sum()) == 16


def test_gradient_runs_the_reference_and_is_right(free_choice, generator):
    image = torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    patches = torch.randn(6, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[0, 4, 8], [3, 3, 7]], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda i, p: paste_patches_(i * 2, p, indices), (image, patches))
    assert ops.last_backend("paste_patches_") == "reference"
    assert torch.autograd.gradcheck(
        lambda p: paste_patches_(image.detach().to(memory_format=torch.channels_last).clone(), p, indices), (patches,)
    )
    with pytest.raises(RuntimeError, match="leaf"):
        paste_patches_(image, patches.detach(), indices)


def test_autograd_notices_that_the_image_changed(free_choice):
    weight = torch.ones(1, 1, 4, 4, requires_grad=True)
    image = torch.ones(1, 1, 4, 4)
    product = weight * image
    paste_patches_(image, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, dtype=torch.int32))
    assert ops.last_backend("paste_patches_") == "cpu"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_inference_mode(backend):
    with torch.inference_mode():
        image = torch.ones(1, 1, 4, 4, device=backend.device)
        zeros = torch.zeros(1, 1, 2, 2, device=backend.device)
        run(backend, image, zeros, torch.tensor([[2]], dtype=torch.int32))
        assert image[0, 0].tolist() == [[1] * 4, [1] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_opcheck(backend, memory_format):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    image = torch.randn(2, 3, 8, 12, device=backend.device).contiguous(memory_format=memory_format)
    indices = torch.tensor([[0, 5], [2, 3]], dtype=torch.int32, device=backend.device)
    patches = torch.randn(4, 3, 4, 4, device=backend.device)
    assert set(torch.library.opcheck(OP, (image, patches, indices)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    torch.compiler.reset()
    compiled = torch.compile(
        lambda i, p, n: paste_patches_(i + 1, p * 2, n) + 1, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for rows, columns in ((3, 4), (5, 6)):
        image = torch.randn(2, 3, 4 * rows, 4 * columns, generator=generator)
        patches = torch.randn(10, 3, 4, 4, generator=generator)
        indices = some_cells(2, rows * columns, 5, generator)
        got = compiled(*(tensor.to(backend.device) for tensor in (image, patches, indices)))
        assert torch.equal(got.cpu(), expected(image + 1, patches * 2, indices) + 1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("paste_patches_", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        image = torch.empty(2, 3, 8, 12, device=device)
        patches = torch.empty(4, 3, 4, 4, device=device)
        assert paste_patches_(image, patches, torch.empty(2, 2, dtype=torch.int32, device=device)) is image
    assert ops.last_backend("paste_patches_") == device


IMAGE, PATCHES, INDICES = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[0], PATCHES, INDICES), r"image must be a tensor \(B, C, H, W\)"),
        ((IMAGE, PATCHES[..., :3], INDICES), r"patches must be a tensor \(B\*K, C, q, q\)"),
        ((IMAGE, PATCHES.half(), INDICES), "image is torch.float32 and patches are torch.float16; convert"),
        ((IMAGE, PATCHES.repeat(2, 1, 1, 1), INDICES), r"1x1 indices .* patches \(1, 3, q, q\), got \(2, 3, 4, 4\)"),
        ((IMAGE, PATCHES[:, :2], INDICES), "image of 3 channels"),
        ((IMAGE[..., :6], PATCHES, INDICES), "a 8x6 image does not divide into cells of 4x4"),
        ((IMAGE, PATCHES, INDICES.long()), "indices must be int32"),
        ((torch.zeros(1, 3, 1, 1).expand(1, 3, 8, 8), PATCHES, INDICES), "expanded tensor"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        paste_patches_(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (IMAGE[0], PATCHES, INDICES),
        (IMAGE, PATCHES[..., :3], INDICES),
        (IMAGE, PATCHES.half(), INDICES),
        (IMAGE, PATCHES.repeat(2, 1, 1, 1), INDICES),
        (IMAGE[..., :6], PATCHES, INDICES),
        (IMAGE, PATCHES, INDICES.long()),
        (IMAGE, PATCHES, INDICES + 4),
        (torch.zeros(1, 3, 1, 1).expand(1, 3, 8, 8), PATCHES, INDICES),
        (IMAGE.to(torch.complex64), PATCHES.to(torch.complex64), INDICES),
    ],
)
def test_the_torch_operator_checks_by_itself(arguments):
    with pytest.raises(RuntimeError, match="paste_patches_: "):
        OP(*arguments)
