"""The CUDA kernels on streams, in graphs and on a second device; everything here needs an NVIDIA GPU."""

import pytest
import torch
from operator_cases import EXACT, cases, moved, results
from torch import Tensor

from mga_kernels import ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
OPERATORS = sorted(op for op, operator in ops.operators().items() if "cuda" in operator.backends)


def backend_and_arguments(op, generator, device="cuda"):
    arguments = moved(cases(generator, torch.float16)[op], device)
    backend = ops.operators()[op].backends["cuda"]
    refused = backend.can_run(*arguments)
    if refused:
        pytest.skip(refused)
    return backend, arguments


def other_values(op, generator):
    """Arguments alike with other numbers in them: those of the second call of the same generator."""
    return cases(generator, torch.float16)[op]


def assert_equal(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("op", OPERATORS)
def test_close_to_the_definition(op, generator):
    backend, arguments = backend_and_arguments(op, generator)
    got = results(op, backend, moved(arguments, "cuda"))
    reference = ops.operators()[op].backends["reference"]
    wanted = results(op, reference, moved(arguments, "cpu"))
    if op == "filter_and_select":
        assert torch.equal(got[1].cpu(), ops.select_patches(got[0].cpu(), *arguments[4:]))
        got, wanted = got[:1], wanted[:1]
    for one, other in zip(got, wanted, strict=True):
        tolerance = 0.0 if op in EXACT else 1e-5 if one.dtype == torch.float32 else 0.03
        torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", OPERATORS)
def test_a_graph_replays_on_changed_input(op, generator):
    backend, arguments = backend_and_arguments(op, generator)
    results(op, backend, moved(arguments, "cuda"))  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(op, backend, arguments)
    for _ in range(3):
        changed = other_values(op, generator)
        for mine, new in zip(arguments, changed, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(new)
        for output in captured:
            if all(output is not argument for argument in arguments):
                output.fill_(77)
        graph.replay()
        assert_equal(captured, results(op, backend, moved(changed, "cuda")))


@pytest.mark.parametrize("op", OPERATORS)
def test_on_a_side_stream(op, generator):
    """The kernel waits for what was queued before it on its own stream: here a long wait, then the input."""
    backend, arguments = backend_and_arguments(op, generator)
    changed = moved(other_values(op, generator), "cuda")
    wanted = results(op, backend, moved(changed, "cuda"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        for mine, new in zip(arguments, changed, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(new, non_blocking=True)
        got = results(op, backend, arguments)
    stream.synchronize()
    assert_equal(got, wanted)


@pytest.mark.parametrize("op", OPERATORS)
def test_on_the_second_device(op, generator):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    backend, arguments = backend_and_arguments(op, generator, "cuda:1")
    assert torch.cuda.current_device() == 0
    got = results(op, backend, arguments)
    assert all(output.device == torch.device("cuda:1") for output in got)


def test_selections_on_two_streams_do_not_meet(generator):
    """Each call has a workspace of its own, so that launches may overlap."""
    backend, arguments = backend_and_arguments("filter_and_select", generator)
    large = torch.rand(8, 136, 240, generator=generator).cuda()
    given = large, large[:, None], *arguments[2:4], 1000, "largest", 0
    wanted = backend.run(*given)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    found = []
    for turn in range(40):
        with torch.cuda.stream(streams[turn % 4]):
            found.append(backend.run(*given))
    torch.cuda.synchronize()
    for got in found:
        assert_equal(got, wanted)
