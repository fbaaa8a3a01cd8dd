import numpy as np
import pytest
import torch

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops import mask_head

TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 6e-2)]
SHAPES = [((1, 3, 4, 4), 4), ((3, 5, 8, 20), 4), ((2, 7, 6, 10), 2), ((1, 2, 24, 8), 8)]
ORDERS = ["softmax-then-pool", "pool-then-softmax"]


def convolve(image, weight, bias):
    """3x3 convolution with zero padding of one (C, H, W) image, tap by tap, in float64."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    result = np.broadcast_to(bias[:, None, None], (len(bias), height, width)).copy()
    for i in range(3):
        for j in range(3):
            result += np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + height, j : j + width])
    return result


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def pool(values, p):
    channels, height, width = values.shape
    return values.reshape(channels, height // p, p, width // p, p).mean(axis=(2, 4))


def expected(feature, weight1, bias1, weight2, bias2, patch_size, order):
    result = []
    for image in feature:
        scores = convolve(np.maximum(convolve(image, weight1, bias1), 0), weight2, bias2)
        if len(bias2) == 1:
            mean = pool(scores, patch_size)[0]
            result.append(np.where(mean > 0, mean, 0.1 * mean))
        elif order == "softmax-then-pool":
            result.append(pool(softmax(scores), patch_size)[1])
        else:
            result.append(softmax(pool(scores, patch_size))[1])
    return np.stack(result)


def arguments(shape, classes, generator):
    channels = shape[1]
    shapes = (shape, (channels, channels, 3, 3), (channels,), (classes, channels, 3, 3), (classes,))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def reference_only(backend):
    if backend.name not in ops.operators()["mask_head"].backends:
        pytest.skip(f"mask_head has no {backend.name} backend")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(("shape", "p"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_equals_the_definition(backend, order, classes, shape, p, dtype, tolerance, generator):
    reference_only(backend)
    tensors = [tensor.to(dtype) for tensor in arguments(shape, classes, generator)]
    wanted = torch.from_numpy(expected(*(tensor.double().numpy() for tensor in tensors), p, order))
    for layout in (torch.contiguous_format, torch.channels_last):
        feature = tensors[0].contiguous(memory_format=layout)
        got = mask_head(*(tensor.to(backend.device) for tensor in (feature, *tensors[1:])), p, order)
        assert ops.last_backend("mask_head") == backend.name
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        absolute = tolerance * float(wanted.abs().max())
        torch.testing.assert_close(got.cpu().double(), wanted, rtol=tolerance, atol=absolute)


def test_the_orders_differ(generator):
    tensors = arguments((1, 4, 8, 8), 2, generator)
    assert (mask_head(*tensors, 4, ORDERS[0]) - mask_head(*tensors, 4, ORDERS[1])).abs().max() > 1e-3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("classes", [1, 2])
def test_gradient(order, classes, generator):
    tensors = [tensor.requires_grad_() for tensor in arguments((2, 2, 4, 4), classes, generator)]
    assert torch.autograd.gradcheck(lambda *t: mask_head(*t, 2, order), tensors)


def test_compile(generator):
    tensors = arguments((2, 3, 8, 8), 2, generator)
    compiled = torch.compile(lambda *t: mask_head(*t, 4, ORDERS[0]), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), mask_head(*tensors, 4, ORDERS[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(3, 8, 8)}, r"feature must be a floating tensor \(B, C, H, W\), got \(3, 8, 8\)"),
        ({0: torch.zeros(1, 3, 8, 6)}, "a 8x6 feature does not divide into cells of 4x4; pad it to 8x8"),
        ({0: torch.zeros(1, 4, 8, 8)}, r"weight1 must be \(3, 4, 3, 3\), got \(3, 3, 3, 3\)"),
        ({2: torch.zeros(2)}, r"bias1 must be \(3,\), got \(2,\)"),
        ({3: torch.zeros(3, 3, 3, 3), 4: torch.zeros(3)}, "weight2 must give 1 or 2 channels, got 3"),
        ({5: 0}, "patch_size must be a whole number of 1 or more, got 0"),
        ({6: "softmax"}, "order 'softmax' does not exist; choose one of softmax-then-pool"),
    ],
)
def test_errors(change, message, generator):
    given = [*arguments((1, 3, 8, 8), 2, generator), 4, ORDERS[0]]
    for position, value in change.items():
        given[position] = value
    with pytest.raises(InputError, match=message):
        mask_head(*given)
