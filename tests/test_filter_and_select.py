import pytest
import torch
from operators import run
from test_dynamic_filter import arguments
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import dynamic_filter, filter_and_select, select_patches

OP = torch.ops.mga.filter_and_select.default
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("order", ["largest", "smallest", "random"])
@pytest.mark.parametrize(
    ("shape", "k"), [((1, 1, 1, 1), 1), ((3, 1, 7, 9), 10), ((2, 4, 5, 6), 30), ((2, 1, 16, 24), 99)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_two_operators(backend, dtype, shape, k, order, generator):
    tensors = [tensor.to(dtype) for tensor in arguments(*shape, generator)]
    mask, indices = run("filter_and_select", backend, *tensors, k, order, 7)
    exact = ops.operators()["dynamic_filter"].backends["reference"].run(*(tensor.double() for tensor in tensors))
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5}.get(dtype, 6e-2)
    torch.testing.assert_close(mask.cpu().double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))
    # The selection is that of the mask which came out, bit for bit.
    select = ops.operators()["select_patches"].backends["reference"].run
    assert torch.equal(indices.cpu(), select(mask.cpu(), k, order, 7))
    assert indices.dtype == torch.int32


def test_the_same_mask_as_dynamic_filter(backend, generator):
    tensors = [tensor.float() for tensor in arguments(2, 3, 9, 11, generator)]
    mask, _ = run("filter_and_select", backend, *tensors, 5, "largest", 0)
    if backend.name not in ops.operators()["dynamic_filter"].backends:
        pytest.skip(f"dynamic_filter has no {backend.name} backend")
    torch.testing.assert_close(mask, dynamic_filter(*(tensor.to(backend.device) for tensor in tensors)))


def test_ties_go_to_the_lower_cell(backend):
    """Filters that only copy the probability, of which many cells are equal."""
    probability = torch.tensor([0.5, 0.25, 0.5, 0.75]).repeat(6).reshape(1, 4, 6)
    weight, bias = torch.zeros(25, 1, 1, 1), torch.zeros(25)
    bias[12] = 1
    mask, indices = run("filter_and_select", backend, probability, probability[:, None], weight, bias, 8, "largest", 0)
    assert torch.equal(mask.cpu(), probability)
    assert indices.tolist() == [[0, 2, 3, 7, 11, 15, 19, 23]]


@pytest.mark.parametrize("k", [0, 20, 10**6])
def test_none_and_all(backend, k, generator):
    tensors = [tensor.float() for tensor in arguments(2, 1, 4, 5, generator)]
    mask, indices = run("filter_and_select", backend, *tensors, k, "largest", 0)
    assert mask.isfinite().all()
    assert indices.tolist() == [list(range(min(k, 20)))] * 2


def test_gradient_runs_the_reference(free_choice, generator):
    tensors = [tensor.requires_grad_() for tensor in arguments(2, 2, 4, 5, generator)]
    assert torch.autograd.gradcheck(lambda *t: filter_and_select(*t, 3)[0], tensors)
    assert ops.last_backend("filter_and_select") == "reference"


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    tensors = [tensor.float().to(backend.device) for tensor in arguments(2, 1, 6, 7, generator)]
    mask, indices = run("filter_and_select", backend, *tensors, 5, "largest", 0)
    compiled = torch.compile(lambda *t: filter_and_select(*t, 5), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    got_mask, got_indices = compiled(*tensors)
    torch.testing.assert_close(got_mask, mask)
    assert torch.equal(got_indices, indices)


def test_opcheck(backend, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    tensors = [tensor.float().to(backend.device) for tensor in arguments(2, 3, 4, 5, generator)]
    run("filter_and_select", backend, *tensors, 5, "largest", 0)
    assert set(torch.library.opcheck(OP, (*tensors, 5, "largest", 0)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("filter_and_select", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        shapes = ((2, 6, 7), (2, 1, 6, 7), (25, 1, 1, 1), (25,))
        mask, indices = filter_and_select(*(torch.empty(shape, device=device) for shape in shapes), 100)
    assert ops.last_backend("filter_and_select") == device
    assert (mask.shape, indices.shape, indices.dtype) == ((2, 6, 7), (2, 42), torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(4, 5)}, r"^filter_and_select: probability must be a floating tensor"),
        ({2: torch.zeros(24, 1, 1, 1)}, "square of an odd number of coefficients"),
        ({4: -1}, "k must be a whole number of 0 or more, got -1"),
        ({5: "best"}, "order 'best' does not exist; choose one of largest"),
        ({6: 2**32}, r"seed must be below 2\^32"),
    ],
)
def test_errors(change, message, generator):
    given = [*arguments(2, 1, 4, 5, generator), 3, "largest", 0]
    for position, value in change.items():
        given[position] = value
    with pytest.raises(InputError, match=message):
        filter_and_select(*given)


def test_selection_of_the_whole_equals_the_parts(generator):
    tensors = [tensor.float() for tensor in arguments(1, 1, 20, 30, generator)]
    mask, indices = filter_and_select(*tensors, 50)
    assert torch.equal(indices, select_patches(mask, 50))
