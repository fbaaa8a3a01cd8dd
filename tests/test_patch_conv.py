import pytest
import torch
from operators import assert_as_exact_as_torch, both_layouts, layouts, run
from test_gather_patches import every_cell
from test_gather_patches import expected as gathered

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops import patch_conv

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def expected(feature, indices, weight, bias, patch_size, halo, slope):
    """Tap by tap over the gathered patches, in float64, zeros around each."""
    patches = gathered(feature, indices, patch_size, halo).double()
    size, side = weight.shape[-1], patch_size + 2 * halo
    padded = torch.zeros(*patches.shape[:2], side + size - 1, side + size - 1, dtype=torch.float64)
    reach = size // 2
    padded[:, :, reach : reach + side, reach : reach + side] = patches
    result = bias.double()[:, None, None].expand(len(patches), -1, side, side).clone()
    for i in range(size):
        for j in range(size):
            window = padded[:, :, i : i + side, j : j + side]
            result += torch.einsum("oc,ncyx->noyx", weight[:, :, i, j].double(), window)
    return torch.where(result > 0, result, slope * result)


def arguments(shape, outputs, size, dtype, generator):
    shapes = (shape, (outputs, shape[1], size, size), (outputs,))
    feature, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return feature.to(dtype), (weight / (size * shape[1] ** 0.5)).to(dtype), bias.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("shape", "outputs", "patch_size", "halo", "slope"),
    [
        ((1, 1, 1, 1), 1, 1, 1, 1.0),
        ((3, 5, 8, 12), 7, 4, 1, 0.05),
        ((2, 16, 8, 8), 16, 4, 0, 0.0),
        ((1, 50, 8, 12), 50, 4, 1, 1.0),
        ((1, 12, 9, 6), 20, 3, 2, 0.2),
    ],
)
def test_equals_the_definition(backend, dtype, size, shape, outputs, patch_size, halo, slope, generator):
    feature, weight, bias = arguments(shape, outputs, size, dtype, generator)
    indices = every_cell(shape[0], shape[2] // patch_size, shape[3] // patch_size).flip(1)[:, :5].contiguous()
    exact = expected(feature, indices, weight, bias, patch_size, halo, slope)
    reference = ops.operators()["patch_conv"].backends["reference"].run
    of_torch = [reference(view, indices, weight, bias, patch_size, halo, slope) for view in both_layouts(feature)]
    for name, view in layouts(feature).items():
        got = run("patch_conv", backend, view, indices, weight, bias, patch_size, halo, slope)
        assert got.dtype == dtype
        assert_as_exact_as_torch(got, of_torch, exact)
        assert got.is_contiguous(memory_format=torch.channels_last), name


def test_nothing_selected(backend, generator):
    feature, weight, bias = arguments((2, 3, 8, 8), 4, 3, torch.float32, generator)
    got = run("patch_conv", backend, feature, torch.empty(2, 0, dtype=torch.int32), weight, bias, 4, 1, 1.0)
    assert got.shape == (0, 4, 6, 6)


def test_the_border_of_a_patch_sees_zeros_not_its_neighbour(backend):
    """Without a halo, a sum of nine ones is 4 in the corners of a patch, whatever lies around it."""
    feature, weight = torch.ones(1, 1, 12, 12), torch.ones(1, 1, 3, 3)
    centre = torch.tensor([[4]], dtype=torch.int32)
    got = run("patch_conv", backend, feature, centre, weight, torch.zeros(1), 4, 0, 1.0)
    assert got[0, 0].tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    feature, weight, bias = arguments((2, 16, 8, 12), 16, 3, torch.float32, generator)
    indices = every_cell(2, 2, 3)
    wanted = run("patch_conv", backend, feature, indices, weight, bias, 4, 1, 0.1)
    compiled = torch.compile(
        lambda *t: 2 * patch_conv(*t, 4, 1, 0.1), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    got = compiled(*(tensor.to(backend.device) for tensor in (feature, indices, weight, bias)))
    torch.testing.assert_close(got, 2 * wanted)


def test_gradient(generator):
    feature, weight, bias = arguments((2, 2, 4, 6), 3, 3, torch.float64, generator)
    indices = torch.tensor([[0, 5], [3, 3]], dtype=torch.int32)
    tensors = [tensor.requires_grad_() for tensor in (feature, weight, bias)]
    assert torch.autograd.gradcheck(lambda f, w, b: patch_conv(f, indices, w, b, 2, 1, 0.1), tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(3, 8, 8)}, r"feature must be a floating tensor \(B, C, H, W\)"),
        ({0: torch.zeros(1, 3, 8, 6)}, "a 8x6 feature does not divide into cells of 4x4"),
        ({1: torch.zeros(1, 1, dtype=torch.int64)}, "indices must be int32"),
        ({2: torch.zeros(4, 3, 5, 5)}, r"weight must be \(C', 3, n, n\), n 1 or 3, got \(4, 3, 5, 5\)"),
        ({2: torch.zeros(4, 2, 3, 3)}, r"weight must be \(C', 3, n, n\)"),
        ({3: torch.zeros(3)}, r"bias must be \(4,\), got \(3,\)"),
        ({3: torch.zeros(4).double()}, "must have one dtype; convert them first"),
        ({4: 0}, "patch_size must be a whole number of 1 or more, got 0"),
        ({5: -1}, "halo must be a whole number of 0 or more, got -1"),
    ],
)
def test_errors(change, message):
    given = [
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1, 1, dtype=torch.int32),
        torch.zeros(4, 3, 3, 3),
        torch.zeros(4),
        4,
        1,
    ]
    for position, value in change.items():
        given[position] = value
    with pytest.raises(InputError, match=message):
        patch_conv(*given)
