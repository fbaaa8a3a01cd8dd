import numpy as np
import pytest
import torch
from operators import far_apart, layouts
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import gather_patches

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]
OP = torch.ops.mga.gather_patches.default


def expected(feature, indices, patch_size, halo):
    """The slice formula, pixel by pixel, in numpy and float64 (which holds every value of the other dtypes)."""
    batch, channels, height, width = feature.shape
    source = feature.detach().cpu().double().numpy()
    side = patch_size + 2 * halo
    patches = np.zeros((batch * indices.shape[1], channels, side, side))
    for n, cell in enumerate(indices.flatten().tolist()):
        row, column = divmod(cell, width // patch_size)
        for y in range(side):
            for x in range(side):
                i, j = row * patch_size - halo + y, column * patch_size - halo + x
                if 0 <= i < height and 0 <= j < width:
                    patches[n, :, y, x] = source[n // indices.shape[1], :, i, j]
    return torch.from_numpy(patches).to(feature.dtype)


def every_cell(batch, rows, columns):
    return torch.arange(rows * columns, dtype=torch.int32).repeat(batch, 1)


def feature_of(shape, dtype, generator):
    return (100 * torch.rand(shape, generator=generator)).to(dtype)


def run(backend, feature, indices, *arguments):
    patches = gather_patches(feature, indices.to(feature.device), *arguments)
    assert ops.last_backend("gather_patches") == backend.name
    return patches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "patch_size", "halo"),
    [
        ((1, 1, 1, 1), 1, 1),
        ((1, 3, 4, 4), 4, 1),
        ((3, 5, 12, 20), 4, 1),
        ((2, 4, 6, 10), 2, 0),
        ((1, 2, 16, 8), 8, 2),
        ((2, 3, 9, 15), 3, 7),
    ],
)
def test_equals_the_formula(backend, dtype, shape, patch_size, halo, generator):
    feature = feature_of(shape, dtype, generator)
    indices = every_cell(shape[0], shape[2] // patch_size, shape[3] // patch_size)
    for name, view in layouts(feature.to(backend.device)).items():
        patches = run(backend, view, indices, patch_size, halo)
        wanted = expected(feature, indices, patch_size, halo)
        torch.testing.assert_close(patches.cpu(), wanted, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
        layout = torch.channels_last if shape[1] > 1 and view.stride(1) == 1 else torch.contiguous_format
        assert patches.is_contiguous(memory_format=layout), name


def test_images_far_apart_in_memory(backend, generator):
    if backend.device != "cpu":
        pytest.skip("the trick with untouched pages is for the CPU")
    feature = feature_of((2, 3, 8, 12), torch.uint8, generator)
    indices = every_cell(2, 2, 3)
    patches = run(backend, far_apart(feature), indices, 4, 1)
    assert torch.equal(patches, expected(feature, indices, 4, 1))


def test_any_order_and_duplicates(backend, generator):
    feature = feature_of((2, 3, 8, 12), torch.float32, generator)
    indices = torch.tensor([[5, 0, 5, 3], [1, 1, 4, 0]], dtype=torch.int32)
    for view in (indices, indices.T.contiguous().T):
        patches = run(backend, feature.to(backend.device), view, 4, 1)
        assert torch.equal(patches.cpu(), expected(feature, indices, 4, 1))


def test_nan_and_inf_stay_where_they_are(backend):
    feature = torch.zeros(1, 1, 4, 8, device=backend.device)
    feature[..., 0, 0], feature[..., 3, 7] = torch.nan, torch.inf
    patches = run(backend, feature, torch.tensor([[0, 1]], dtype=torch.int32), 4, 1)
    assert patches.isnan().sum() == 1
    assert patches[0, 0, 1, 1].isnan()
    assert patches.isinf().sum() == 1
    assert patches[1, 0, 4, 4].isinf()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_nothing_selected(backend, memory_format):
    feature = torch.randn(2, 3, 8, 8, device=backend.device).contiguous(memory_format=memory_format)
    patches = run(backend, feature, torch.empty(2, 0, dtype=torch.int32), 4, 1)
    assert patches.shape == (0, 3, 6, 6)


@pytest.mark.parametrize("bad", [-1, 6, 2**31 - 1])
def test_index_outside_the_grid(backend, bad):
    feature = torch.ones(1, 2, 8, 12, device=backend.device)
    indices = torch.tensor([[0, bad]], dtype=torch.int32, device=backend.device)
    if backend.device == "cpu":
        with pytest.raises(InputError, match=rf"^gather_patches: index {bad} is outside the 2x3 grid.*another size\?$"):
            gather_patches(feature, indices, 4, 0)
    else:
        patches = gather_patches(feature, indices, 4, 0)
        assert (patches[0] == 1).all()
        assert (patches[1] == 0).all()


def test_gradient_runs_the_reference_and_is_right(free_choice, generator):
    feature = torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[0, 4, 8], [3, 3, 7]], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda f: gather_patches(f, indices, 2, 1), (feature,))
    assert ops.last_backend("gather_patches") == "reference"
    with torch.no_grad():
        gather_patches(feature, indices, 2, 1)
    assert ops.last_backend("gather_patches") == "cpu"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_opcheck(backend, memory_format):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    feature = torch.randn(2, 3, 8, 12, device=backend.device).contiguous(memory_format=memory_format)
    indices = torch.tensor([[0, 5], [2, 3]], dtype=torch.int32, device=backend.device)
    assert set(torch.library.opcheck(OP, (feature, indices, 4, 1)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    torch.compiler.reset()
    compiled = torch.compile(
        lambda f, i: gather_patches(f + 1, i, 2, 1) * 2, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for rows, columns in ((3, 4), (5, 6)):
        feature = torch.randn(2, 3, 2 * rows, 2 * columns, generator=generator)
        indices = every_cell(2, rows, columns)[:, ::2]
        patches = compiled(feature.to(backend.device), indices.to(backend.device))
        assert torch.equal(patches.cpu(), 2 * expected(feature + 1, indices, 2, 1))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("gather_patches", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        feature = torch.empty(2, 3, 8, 12, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
        patches = gather_patches(feature, torch.empty(2, 5, dtype=torch.int32, device=device), 4, 1)
    assert ops.last_backend("gather_patches") == device
    assert patches.shape == (10, 3, 6, 6)
    assert (patches.dtype, patches.device.type) == (torch.float16, device)
    assert patches.is_contiguous(memory_format=torch.channels_last)


FEATURE, INDICES = torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FEATURE[0], INDICES, 4, 1), r"feature must be a tensor \(B, C, H, W\), got \(2, 8, 8\)"),
        ((FEATURE[..., :7], INDICES, 4, 1), "a 8x7 feature does not divide into cells of 4x4; pad it to 8x8 first"),
        ((FEATURE, INDICES.long(), 4, 1), "indices must be int32, as select_patches returns them, got torch.int64"),
        ((FEATURE, INDICES[0], 4, 1), r"indices must be \(B, K\) with B = 1"),
        ((FEATURE, INDICES.repeat(2, 1), 4, 1), r"indices must be \(B, K\) with B = 1"),
        ((FEATURE, INDICES, 0, 1), "patch_size must be a whole number of 1 or more, got 0"),
        ((FEATURE, INDICES, 4, -1), "halo must be a whole number of 0 or more, got -1"),
        ((FEATURE, INDICES.to("meta"), 4, 1), "all tensors must be on one device, got cpu and meta"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        gather_patches(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (FEATURE[0], INDICES, 4, 1),
        (FEATURE[..., :7], INDICES, 4, 1),
        (FEATURE, INDICES.long(), 4, 1),
        (FEATURE, INDICES.repeat(2, 1), 4, 1),
        (FEATURE, INDICES + 4, 4, 1),
        (FEATURE, INDICES, 0, 1),
        (FEATURE, INDICES, 4, -1),
        (FEATURE.to(torch.complex64), INDICES, 4, 1),
    ],
)
def test_the_torch_operator_checks_by_itself(arguments):
    with pytest.raises(RuntimeError, match="gather_patches: "):
        OP(*arguments)
