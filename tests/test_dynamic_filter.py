import numpy as np
import pytest
import torch

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops import dynamic_filter

TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 6e-2)]


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


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 7, 9), (2, 6, 5, 4), (1, 1, 1, 12)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_equals_the_definition(backend, shape, dtype, tolerance, generator):
    if backend.name not in ops.operators()["dynamic_filter"].backends:
        pytest.skip(f"dynamic_filter has no {backend.name} backend")
    tensors = [tensor.to(dtype) for tensor in arguments(*shape, generator)]
    wanted = torch.from_numpy(expected(*(tensor.double().numpy() for tensor in tensors)))
    for source in (tensors[1], tensors[1].contiguous(memory_format=torch.channels_last)):
        given = (tensors[0], source, *tensors[2:])
        got = dynamic_filter(*(tensor.to(backend.device) for tensor in given))
        assert ops.last_backend("dynamic_filter") == backend.name
        absolute = tolerance * float(wanted.abs().max())
        torch.testing.assert_close(got.cpu().double(), wanted, rtol=tolerance, atol=absolute)


def test_other_filter_sizes(generator):
    tensors = arguments(2, 3, 5, 6, generator, taps=9)
    wanted = torch.from_numpy(expected(*(tensor.numpy() for tensor in tensors)))
    torch.testing.assert_close(dynamic_filter(*tensors), wanted)


def test_gradient(generator):
    tensors = [tensor.requires_grad_() for tensor in arguments(2, 2, 4, 5, generator)]
    assert torch.autograd.gradcheck(dynamic_filter, tensors)


def test_compile(generator):
    tensors = arguments(2, 1, 6, 7, generator)
    compiled = torch.compile(dynamic_filter, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), dynamic_filter(*tensors))


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
