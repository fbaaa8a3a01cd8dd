"""conv_chain's CUDA kernel in the emulation (see cuda_emulated.py)."""

import pytest
import torch
from cuda_emulated import launch, reference, start

from mga_kernels.ops.conv_chain import cuda as chain_rules

HALF = [torch.float16, torch.bfloat16]
INVALID_CONFIGURATION = 9  # cudaErrorInvalidConfiguration


def chain(count, channels, side, layers, dtype, generator):
    """Arguments whose states stay near 1, so that errors of rounding do not grow."""
    patches = torch.randn(count, channels, side, side, generator=generator)
    weights = torch.randn(layers, channels, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    biases = torch.randn(layers, channels, generator=generator) / 4
    slopes = torch.rand(layers, channels, generator=generator)
    return [tensor.to(dtype) for tensor in (patches, weights, biases, slopes)]


def inner_channels(weights):
    """The same values with the input channels innermost in memory."""
    return weights.movedim(2, 4).contiguous().movedim(4, 2)


def run(emulation, patches, weights, biases, slopes, skips, crop):
    count, channels, side, _ = patches.shape
    output = torch.full((count, side - 2 * crop, side - 2 * crop, channels), torch.nan, dtype=patches.dtype)
    sizes = (count, channels, side, len(weights), crop, HALF.index(patches.dtype))
    launch(
        emulation,
        "conv_chain",
        *(patches, weights, biases, slopes, output, sizes, patches.stride(), weights.stride(), tuple(skips)),
    )
    return output.permute(0, 3, 1, 2)


def check(got, patches, weights, biases, slopes, skips, crop):
    """No worse than twice what PyTorch makes of it in the same dtype, against float64."""
    exact = reference("conv_chain", *(t.double() for t in (patches, weights, biases, slopes)), skips, crop)
    usual = reference("conv_chain", patches, weights, biases, slopes, skips, crop)
    scale = exact.abs().amax()
    error, allowed = ((result.double() - exact).abs().max() / scale for result in (got, usual))
    assert error <= 2 * allowed, (float(error), float(allowed))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("count", "channels", "side", "skips", "crop"),
    [
        (5, 12, 4, [-1, 0, -1], 1),
        (3, 40, 6, [-1, 0], 0),
        (2, 48, 5, [-1], 1),
        (3, 50, 6, [-1, 0, -1, 2, 0], 1),
        (3, 64, 6, [-1, 0], 1),
        (1, 64, 10, [0], 0),
        (4, 1, 3, [-1, -1], 1),
        (2, 33, 1, [-1, 1], 0),
    ],
)
def test_equals_the_definition(emulation, thread_order, dtype, count, channels, side, skips, crop, generator):
    arguments = chain(count, channels, side, len(skips), dtype, generator)
    arguments[0] = arguments[0].contiguous(memory_format=torch.channels_last)
    arguments[1] = inner_channels(arguments[1])
    check(run(emulation, *arguments, skips, crop), *arguments, skips, crop)


@pytest.mark.parametrize("layout", ["contiguous", "part", "unaligned", "transposed"])
def test_any_strides(emulation, layout, generator):
    patches, weights, biases, slopes = chain(3, 16, 4, 2, torch.float16, generator)
    if layout == "part":
        wide = torch.full((6, 4, 4, 24), torch.nan, dtype=torch.float16)
        part = wide[::2, ..., 4:20].permute(0, 3, 1, 2)
        patches = part.copy_(patches)
        weights = torch.stack([inner_channels(weights)] * 2, 1).flatten(0, 1)[::2]
    elif layout == "unaligned":
        patches = torch.zeros(3, 4, 4, 17, dtype=torch.float16)[..., 1:].permute(0, 3, 1, 2).copy_(patches)
    elif layout == "transposed":
        patches = patches.transpose(2, 3).contiguous().transpose(2, 3)
        weights = weights.transpose(1, 2).contiguous().transpose(1, 2)
    arguments = patches, weights, biases, slopes, [-1, 0], 1
    check(run(emulation, *arguments), *arguments)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("multiprocessors", [1, 3, 100])
def test_every_size_of_block(emulation, emulated_gpu, multiprocessors, dtype, generator):
    """One multiprocessor makes for blocks of 256 rows, three of 128 and a hundred of 64."""
    emulated_gpu(multiprocessors=multiprocessors)
    arguments = chain(8, 20, 6, 2, dtype, generator)
    check(run(emulation, *arguments, [-1, 0], 0), *arguments, [-1, 0], 0)


@pytest.mark.parametrize("tiles", ["4", "2", "1"])
def test_a_size_of_block_can_be_forced(emulation, emulated_gpu, monkeypatch, tiles, generator):
    """For a benchmark. One multiprocessor makes for four tiles, which patches of 16x16 pixels fill."""
    emulated_gpu(multiprocessors=1)
    monkeypatch.setenv("MGA_CHAIN_TILES", tiles)
    arguments = chain(3, 20, 6, 2, torch.float16, generator)
    check(run(emulation, *arguments, [-1, 0], 0), *arguments, [-1, 0], 0)
    patches, *rest = chain(1, 16, 16, 1, torch.float16, generator)
    sizes = (0, 16, 16, 1, 0, 0)
    status = start(emulation, "conv_chain", patches, *rest, patches, sizes, patches.stride(), rest[0].stride(), (-1,))
    assert (status == INVALID_CONFIGURATION) == (tiles != "4")


def test_nothing_outside_a_patch_is_seen(emulation, generator):
    """A patch gives the same result whatever its neighbours in the block hold."""
    patches, *rest = chain(4, 12, 4, 2, torch.float16, generator)
    together = run(emulation, patches, *rest, [-1, 0], 0)
    patches[:3] = torch.inf
    assert torch.equal(run(emulation, patches, *rest, [-1, 0], 0)[3], together[3])


def test_more_states_than_fit_are_refused(emulation, emulated_gpu, generator):
    emulated_gpu(shared_bytes=101376)
    patches, weights, biases, slopes = chain(1, 64, 6, 9, torch.float16, generator)
    output = torch.empty(1, 6, 6, 64, dtype=torch.float16)
    strides = patches.stride(), weights.stride()
    for skips, count in (((-1, -1, -1, -1, -1, 3, 2, 1, 0), 1), ((-1,) * 9, 0)):
        sizes = (count, 64, 6, 9, 0, 0)
        arguments = (patches, weights, biases, slopes, output, sizes, *strides, skips)
        assert start(emulation, "conv_chain", *arguments) == 0, skips
    emulated_gpu(shared_bytes=70000)
    skips = (-1, -1, -1, -1, -1, 3, 2, 1, 0)
    arguments = (patches, weights, biases, slopes, output, (1, 64, 6, 9, 0, 0), *strides, skips)
    assert start(emulation, "conv_chain", *arguments) == INVALID_CONFIGURATION


@pytest.mark.parametrize(("channels", "side"), [(12, 4), (20, 6), (64, 10), (64, 16), (12, 16)])
def test_what_python_lets_through_the_launcher_takes(emulation, emulated_gpu, channels, side, generator):
    """``refuses`` and the launcher lay out shared memory alike; tried on the smallest GPU meant."""
    emulated_gpu(shared_bytes=chain_rules.SHARED_BYTES, multiprocessors=1)
    outcomes = set()
    for layers in range(1, 25, 2):
        # Every state of the first half is wanted again in the second, the last one first.
        skips = [-1] * (layers // 2) + list(range(layers // 2, -1, -1))
        skips = skips[:layers]
        patches, *rest = chain(0, channels, side, len(skips), torch.float16, generator)
        refused = chain_rules.refuses(patches, *rest, skips, 0)
        sizes = (0, channels, side, len(skips), 0, 0)  # no patch: the launcher decides, and launches nothing
        arguments = patches, *rest, patches, sizes, patches.stride(), rest[0].stride(), tuple(skips)
        status = start(emulation, "conv_chain", *arguments)
        assert (status == INVALID_CONFIGURATION) == (refused is not None), (skips, refused)
        outcomes.add(status == INVALID_CONFIGURATION)
    assert outcomes == {True, False} or channels == 12
