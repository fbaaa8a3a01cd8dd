"""filter_and_select's CUDA kernel in the emulation (see cuda_emulated.py)."""

import pytest
import torch
from cuda_emulated import launch, reference

ORDERS = ["largest", "smallest", "random"]
REALS = [torch.float16, torch.bfloat16, torch.float32]


def run(emulation, probability, source, weight, bias, k, order, seed):
    batch, rows, columns = probability.shape
    mask = torch.full_like(probability, torch.nan)
    indices = torch.full((batch, min(k, rows * columns)), -7, dtype=torch.int32)
    workspace = torch.full((emulation.filter_and_select_workspace(batch),), -1, dtype=torch.int32)
    size = round(len(weight) ** 0.5)
    sizes = (batch, rows, columns, source.shape[1], size, indices.shape[1], ORDERS.index(order), seed)
    types = (REALS.index(source.dtype), REALS.index(weight.dtype))
    arguments = probability, source, weight, bias, mask, indices, workspace, sizes, source.stride(), types
    launch(emulation, "filter_and_select", *arguments)
    return mask, indices


def check(emulation, probability, source, weight, bias, k, order="largest", seed=0):
    mask, indices = run(emulation, probability, source, weight, bias, k, order, seed)
    exact = reference("dynamic_filter", probability.double(), source, weight, bias)
    scale = exact.abs().max().clamp(min=1)
    torch.testing.assert_close(mask.double(), exact, rtol=0, atol=float(2e-6 * scale))
    assert torch.equal(indices, reference("select_patches", mask, k, order, seed))
    return mask


def filters(size, channels, generator, dtype=torch.float32):
    weight = torch.randn(size * size, channels, 1, 1, generator=generator) / size
    return weight.to(dtype), torch.randn(size * size, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (1, 24, 43), (2, 1, 600)])
@pytest.mark.parametrize("size", [1, 5, 7])
def test_equals_the_definition(emulation, thread_order, shape, size, generator):
    probability = torch.rand(shape, generator=generator)
    cells = shape[1] * shape[2]
    for number, k in enumerate((0, 1, max(1, cells // 3), cells, cells + 4)):
        weight, bias = filters(size, 1, generator)
        check(emulation, probability, probability[:, None], weight, bias, k, ORDERS[number % 3], number)


@pytest.mark.parametrize("source_type", REALS)
@pytest.mark.parametrize("weight_type", REALS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filters_made_from_the_feature(emulation, source_type, weight_type, layout, generator):
    probability = torch.rand(2, 9, 11, generator=generator)
    source = torch.randn(2, 14, 9, 11, generator=generator).to(source_type).contiguous(memory_format=layout)
    weight, bias = filters(5, 14, generator, weight_type)
    check(emulation, probability, source, weight, bias, 30)


def test_ties_go_to_the_lower_cell(emulation, thread_order, generator):
    """A mask of few values, over several blocks, so that the cut falls among equals."""
    probability = torch.randint(3, (1, 30, 41), generator=generator).float()
    weight, bias = torch.zeros(25, 1, 1, 1), torch.zeros(25)
    bias[12] = 1
    for k in (1, 100, 615, 1229):
        mask = check(emulation, probability, probability[:, None], weight, bias, k)
        assert torch.equal(mask, probability)


def test_nan_is_chosen_last(emulation, generator):
    probability = torch.rand(1, 30, 20, generator=generator)
    probability[0, 3, 4] = torch.nan
    weight, bias = filters(3, 1, generator)
    for order in ("largest", "smallest"):
        mask, indices = run(emulation, probability, probability[:, None], weight, bias, 591, order, 0)
        assert int(mask.isnan().sum()) == 9
        assert not mask.flatten()[indices[0].long()].isnan().any()


def test_more_cells_than_registers_hold(emulation, generator):
    probability = torch.rand(1, 190, 180, generator=generator)
    weight, bias = filters(5, 1, generator)
    check(emulation, probability, probability[:, None], weight, bias, 1000)
