import numpy as np
import pytest
import torch
from operators import assert_as_exact_as_torch, run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import dynamic_filter

OP = torch.ops.mga.dynamic_filter.default
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def expected(probability, source, weight, bias):
    """Position by position, in float64."""
    batch, rows, columns = probability.shape
    size = round(len(bias) ** 0.5)
    mask = np.zeros((batch, rows, columns))
    for b, row, column in np.ndindex(batch, rows, columns):
        coefficients = (weight[:, :, 0, 0] @ source[b, :, row, column] + bias).reshape(size, size)
        for i in range(size):
            for j in range(size):
                y, x = row + i - size // 2, column + j - size // 2
                if 0 <= y < rows and 0 <= x < columns:
                    mask[b, row, column] += coefficients[i, j] * probability[b, y, x]
    return mask


def arguments(batch, channels, rows, columns, generator, taps=25):
    shapes = ((batch, rows, columns), (batch, channels, rows, columns), (taps, channels, 1, 1), (taps,))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 7, 9), (2, 6, 5, 4), (1, 1, 1, 12), (1, 3, 6, 37)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("taps", [25, 9])
def test_equals_the_definition(backend, shape, dtype, taps, generator):
    tensors = [tensor.to(dtype) for tensor in arguments(*shape, generator, taps)]
    exact = torch.from_numpy(expected(*(tensor.double().numpy() for tensor in tensors)))
    of_torch = ops.operators()["dynamic_filter"].backends["reference"].run(*tensors)
    sideways = [tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in tensors[:2]]
    channels_last = [tensors[0], tensors[1].contiguous(memory_format=torch.channels_last)]
    for probability, source in (tensors[:2], sideways, channels_last):
        got = run("dynamic_filter", backend, probability, source, *tensors[2:])
        assert got.dtype == dtype
        assert_as_exact_as_torch(got, of_torch, exact)


def test_the_probability_is_its_own_source(backend, generator):
    probability, _, weight, bias = arguments(2, 1, 6, 7, generator)
    exact = torch.from_numpy(expected(*(t.numpy() for t in (probability, probability[:, None], weight, bias))))
    got = run("dynamic_filter", backend, probability, probability[:, None], weight, bias)
    torch.testing.assert_close(got.cpu(), exact)


def test_dtype_is_that_of_the_probability(backend, generator):
    probability, *others = arguments(1, 2, 4, 5, generator)
    got = run("dynamic_filter", backend, probability.float(), *others)
    assert got.dtype == torch.float32
    exact = torch.from_numpy(expected(*(tensor.numpy() for tensor in (probability, *others))))
    torch.testing.assert_close(got.cpu().double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 1, 3, 4), (2, 1, 0, 4)])
def test_nothing_to_filter(backend, shape, generator):
    if backend.name == "reference":
        pytest.skip("torch's convolution refuses empty maps")
    got = run("dynamic_filter", backend, *arguments(*shape, generator))
    assert got.shape == (shape[0], *shape[2:])


def test_gradient(generator):
    tensors = [tensor.requires_grad_() for tensor in arguments(2, 2, 4, 5, generator)]
    assert torch.autograd.gradcheck(dynamic_filter, tensors)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    tensors = [tensor.float() for tensor in arguments(2, 1, 6, 7, generator)]
    wanted = run("dynamic_filter", backend, *tensors)
    compiled = torch.compile(lambda *t: 2 * dynamic_filter(*t), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    torch.testing.assert_close(compiled(*(tensor.to(backend.device) for tensor in tensors)), 2 * wanted)


def test_opcheck(backend, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    tensors = [tensor.float().to(backend.device) for tensor in arguments(2, 3, 4, 5, generator)]
    run("dynamic_filter", backend, *tensors)
    assert set(torch.library.opcheck(OP, tensors).values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("dynamic_filter", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        shapes = ((2, 6, 7), (2, 3, 6, 7), (25, 3, 1, 1), (25,))
        mask = dynamic_filter(*(torch.empty(shape, device=device, dtype=torch.float16) for shape in shapes))
    assert ops.last_backend("dynamic_filter") == device
    assert (mask.shape, mask.dtype, mask.device.type) == ((2, 6, 7), torch.float16, device)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(4, 5)}, r"probability must be a floating tensor \(B, Hp, Wp\), got \(4, 5\)"),
        ({1: torch.zeros(2, 1, 4, 6)}, r"source must be \(2, S, 4, 5\), got \(2, 1, 4, 6\)"),
        ({2: torch.zeros(24, 1, 1, 1)}, "square of an odd number of coefficients, as 25, got 24"),
        ({2: torch.zeros(16, 1, 1, 1)}, "square of an odd number of coefficients, as 25, got 16"),
        ({2: torch.zeros(25, 2, 1, 1)}, r"weight must be \(25, 1, 1, 1\) and bias \(25,\), got \(25, 2, 1, 1\)"),
        ({3: torch.zeros(24)}, r"bias \(25,\), got \(25, 1, 1, 1\) and \(24,\)"),
    ],
)
def test_errors(change, message, generator):
    given = arguments(2, 1, 4, 5, generator)
    for position, value in change.items():
        given[position] = value
    with pytest.raises(InputError, match=message):
        dynamic_filter(*given)
