import numpy as np
import pytest
import torch
from operators import assert_as_exact_as_torch, both_layouts, far_apart, layouts, run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import mask_head

OP = torch.ops.mga.mask_head.default
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# The last ones are wider than one register tile, with and without a rest, of few and many, even and odd channels.
SHAPES = [
    ((1, 3, 4, 4), 4),
    ((3, 5, 8, 20), 4),
    ((2, 7, 6, 10), 2),
    ((1, 2, 24, 8), 8),
    ((1, 1, 3, 1), 1),
    ((2, 4, 3, 9), 3),
    ((1, 50, 8, 96), 4),
    ((2, 33, 6, 59), 1),
    ((1, 16, 4, 148), 4),
]
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


def layer_arguments(shape, classes, generator, dtype):
    """Weights of the size that training gives them, so that half precision has something to keep."""
    feature, weight1, bias1, weight2, bias2 = arguments(shape, classes, generator)
    scale = (9 * shape[1]) ** -0.5
    return [tensor.to(dtype) for tensor in (feature, weight1 * scale, bias1 * scale, weight2 * scale, bias2 * scale)]


@pytest.mark.parametrize(("classes", "order"), [(1, ORDERS[0]), (2, ORDERS[0]), (2, ORDERS[1])])
@pytest.mark.parametrize(("shape", "p"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_definition(backend, order, classes, shape, p, dtype, generator):
    tensors = layer_arguments(shape, classes, generator, dtype)
    exact = torch.from_numpy(expected(*(tensor.double().numpy() for tensor in tensors), p, order))
    reference = ops.operators()["mask_head"].backends["reference"].run
    of_torch = [reference(feature, *tensors[1:], p, order) for feature in both_layouts(tensors[0])]
    for feature in layouts(tensors[0]).values():
        got = run("mask_head", backend, feature, *tensors[1:], p, order)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_as_exact_as_torch(got, of_torch, exact)


def test_hidden_channels_may_differ_from_the_feature(backend, generator):
    shapes = ((1, 6, 8, 12), (19, 6, 3, 3), (19,), (2, 19, 3, 3), (2,))
    tensors = [torch.randn(shape, generator=generator).div(4) for shape in shapes]
    exact = torch.from_numpy(expected(*(tensor.double().numpy() for tensor in tensors), 4, ORDERS[0]))
    torch.testing.assert_close(run("mask_head", backend, *tensors, 4, ORDERS[0]).cpu().double(), exact)


@pytest.mark.parametrize("order", ORDERS)
def test_large_scores_and_nan(backend, order, generator):
    feature, *weights = [tensor.float() for tensor in arguments((2, 3, 8, 8), 2, generator)]
    feature = feature * 1e4
    feature[1, 0, 0, 0] = torch.nan
    exact = (
        ops.operators()["mask_head"]
        .backends["reference"]
        .run(feature.double(), *(weight.double() for weight in weights), 4, order)
    )
    got = run("mask_head", backend, feature, *weights, 4, order).cpu().double()
    torch.testing.assert_close(got, exact, equal_nan=True, atol=1e-4, rtol=1e-4)
    assert got[0].isfinite().all()
    assert got[1, 0, 0].isnan()


def test_images_far_apart_in_memory(backend, generator):
    tensors = layer_arguments((2, 18, 8, 20), 2, generator, torch.bfloat16)
    if backend.device != "cpu":
        pytest.skip("the trick with untouched pages is for the CPU")
    near = mask_head(*tensors, 4, ORDERS[0])
    assert torch.equal(mask_head(far_apart(tensors[0]), *tensors[1:], 4, ORDERS[0]), near)
    assert ops.last_backend("mask_head") == backend.name


def test_threads_do_not_change_a_bit(generator):
    tensors = layer_arguments((3, 20, 24, 28), 2, generator, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(ops.operators()["mask_head"].backends["cpu"].run(*tensors, 4, ORDERS[0]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_no_images(backend, generator):
    feature, *weights = [tensor.float() for tensor in arguments((1, 3, 8, 8), 2, generator)]
    assert run("mask_head", backend, feature[:0], *weights, 4, ORDERS[0]).shape == (0, 2, 2)


def test_the_orders_differ(generator):
    tensors = arguments((1, 4, 8, 8), 2, generator)
    assert (mask_head(*tensors, 4, ORDERS[0]) - mask_head(*tensors, 4, ORDERS[1])).abs().max() > 1e-3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("classes", [1, 2])
def test_gradient(order, classes, generator):
    tensors = [tensor.requires_grad_() for tensor in arguments((2, 2, 4, 4), classes, generator)]
    assert torch.autograd.gradcheck(lambda *t: mask_head(*t, 2, order), tensors)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    tensors = [tensor.float() for tensor in arguments((2, 3, 8, 8), 2, generator)]
    wanted = run("mask_head", backend, *tensors, 4, ORDERS[0])
    compiled = torch.compile(
        lambda *t: mask_head(*t, 4, ORDERS[0]) + 1, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    got = compiled(*(tensor.to(backend.device) for tensor in tensors))
    torch.testing.assert_close(got, wanted + 1)


@pytest.mark.parametrize("classes", [1, 2])
def test_opcheck(backend, classes, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    tensors = [tensor.float().to(backend.device) for tensor in arguments((2, 3, 8, 12), classes, generator)]
    run("mask_head", backend, *tensors, 4, ORDERS[0])
    assert set(torch.library.opcheck(OP, (*tensors, 4, ORDERS[0])).values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("mask_head", device):
        pytest.skip(f"the library was built without {device} kernels")
    shapes = ((2, 3, 8, 12), (5, 3, 3, 3), (5,), (2, 5, 3, 3), (2,))
    with FakeTensorMode():
        tensors = [torch.empty(shape, device=device, dtype=torch.float16) for shape in shapes]
        probability = mask_head(*tensors, 4, ORDERS[0])
    assert ops.last_backend("mask_head") == device
    assert (probability.shape, probability.dtype, probability.device.type) == ((2, 2, 3), torch.float32, device)


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
