import pytest
import torch
from operators import assert_as_exact_as_torch, both_layouts, layouts, run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import conv_chain

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CHAINS = {
    "one layer": ([-1], [1.0]),
    "plain": ([-1, -1, -1], [0.0, 0.25, 1.0]),
    "residual block": ([-1, 0], [0.0, 1.0]),
    "two blocks and a long skip": ([-1, 0, -1, 2, 0], [0.2, 1.0, 0.2, 1.0, 1.0]),
    "skip to the last state": ([0, 1], [0.1, 0.0]),
}


def expected(patches, weights, biases, slopes, skips, crop):
    """Tap by tap in float64."""
    states = [patches.double()]
    count, channels, side, _ = patches.shape
    for layer, skip in enumerate(skips):
        padded = torch.zeros(count, channels, side + 2, side + 2, dtype=torch.float64)
        padded[:, :, 1:-1, 1:-1] = states[-1]
        result = biases[layer].double()[:, None, None].expand(count, -1, side, side).clone()
        for i in range(3):
            for j in range(3):
                window = padded[:, :, i : i + side, j : j + side]
                result += torch.einsum("oc,ncyx->noyx", weights[layer, :, :, i, j].double(), window)
        if skip >= 0:
            result += states[skip]
        states.append(torch.where(result > 0, result, slopes[layer].double()[:, None, None] * result))
    return states[-1][..., crop : side - crop, crop : side - crop]


def arguments(count, channels, side, chain, dtype, generator):
    skips, slopes = CHAINS[chain]
    layers = len(skips)
    patches, weights, biases = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((count, channels, side, side), (layers, channels, channels, 3, 3), (layers, channels))
    )
    slope = torch.tensor(slopes)[:, None].expand(-1, channels).contiguous()
    slope[0, 0] += 0.125  # each channel has its own
    weights = weights / (9 * channels) ** 0.5
    return *(tensor.to(dtype) for tensor in (patches, weights, biases * 0.1, slope)), skips


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(
    ("count", "channels", "side", "crop"), [(1, 1, 1, 0), (3, 5, 3, 1), (7, 12, 6, 0), (5, 16, 6, 1), (2, 50, 6, 1)]
)
def test_equals_the_definition(backend, dtype, chain, count, channels, side, crop, generator):
    given = arguments(count, channels, side, chain, dtype, generator)
    exact = expected(*given, crop)
    reference = ops.operators()["conv_chain"].backends["reference"].run
    of_torch = [reference(patches, *given[1:], crop) for patches in both_layouts(given[0])]
    for patches in layouts(given[0]).values():
        got = run("conv_chain", backend, patches, *given[1:], crop)
        assert got.dtype == dtype
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert_as_exact_as_torch(got, of_torch, exact)


def test_no_patches(backend, generator):
    patches, *rest = arguments(1, 4, 6, "plain", torch.float32, generator)
    assert run("conv_chain", backend, patches[:0], *rest, 1).shape == (0, 4, 4, 4)


def test_more_patches_than_at_once(backend, generator):
    given = arguments(300, 3, 4, "residual block", torch.float32, generator)
    torch.testing.assert_close(
        run("conv_chain", backend, *given, 1).cpu().double(), expected(*given, 1), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    *tensors, skips = arguments(5, 16, 6, "residual block", torch.float32, generator)
    wanted = run("conv_chain", backend, *tensors, skips, 1)
    compiled = torch.compile(
        lambda *t: 2 * conv_chain(*t, skips, 1), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    torch.testing.assert_close(compiled(*(tensor.to(backend.device) for tensor in tensors)), 2 * wanted)


def test_gradient(generator):
    *tensors, skips = arguments(2, 2, 4, "residual block", torch.float64, generator)
    tensors = [tensor.requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(lambda *t: conv_chain(*t, skips, 1), tensors)


def test_opcheck(backend, generator):
    if backend.name not in ("cpu", "cuda") or not _native.has_kernel("conv_chain", backend.name):
        pytest.skip(f"no kernel of the library for {backend.name}")
    given = arguments(4, 16, 6, "residual block", torch.float16, generator)
    run("conv_chain", backend, *given, 1)
    moved = [tensor.to(backend.device) for tensor in given[:4]]
    report = torch.library.opcheck(torch.ops.mga.conv_chain.default, (*moved, given[4], 1))
    assert set(report.values()) == {"SUCCESS"}


def test_fake_tensors():
    """The shape function, which needs no kernel for the device."""
    with FakeTensorMode():
        shapes = ((5, 8, 6, 6), (2, 8, 8, 3, 3), (2, 8), (2, 8))
        given = [torch.empty(shape, device="cuda", dtype=torch.float16) for shape in shapes]
        got = torch.ops.mga.conv_chain.default(*given, [-1, 0], 1)
    assert (got.shape, got.dtype, got.device.type) == ((5, 8, 4, 4), torch.float16, "cuda")
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(4, 6, 6)}, r"patches must be a floating tensor \(N, C, q, q\)"),
        ({0: torch.zeros(2, 4, 6, 5)}, "patches must be square"),
        ({1: torch.zeros(2, 4, 3, 3, 3)}, r"weights must be \(2, 4, 4, 3, 3\)"),
        ({2: torch.zeros(3, 4)}, r"biases must be \(2, 4\)"),
        ({3: torch.zeros(2, 4).double()}, "slopes are torch.float64 and patches torch.float32"),
        ({4: [-1]}, "skips must hold 2 numbers"),
        ({4: [-1, 2]}, "the l-th between -1 and l"),
        ({5: 2}, "crop must be 0, or 1"),
        ({0: torch.zeros(2, 4, 2, 2), 5: 1}, "crop must be 0, or 1 for patches of 3x3 and more"),
    ],
)
def test_errors(change, message, generator):
    given = [*arguments(2, 4, 6, "residual block", torch.float32, generator), 0]
    for position, value in change.items():
        given[position] = value
    with pytest.raises(InputError, match=message):
        conv_chain(*given)
