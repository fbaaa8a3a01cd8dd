"""The plan of whole networks for GPUs, run on the CPU: what it computes, and that a graph could hold it."""

import re

import pytest
import torch
from capture_guard import CaptureGuard
from fake_graph import fake_graphs as fake_graphs
from network_zoo import _temper, photographs
from test_cuda_graph import CPU, assert_alike, assert_nearly, capturing, graphs, one_thread, picture  # noqa: F401

from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.networks import WholeConfig, WholeNetwork, network_names
from mga_kernels.networks.colour import COLOURS, INPUT_RANGES, ONLY
from mga_kernels.runtimes import choose
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")
SMALL = {"rcan": {"blocks_per_group": 2}}


def whole_network(name: str, colour: str = "rgb", input_range: str = "0..1") -> WholeNetwork:
    """One block, with pictures that are not flat."""
    torch.manual_seed(0)
    settings = SMALL.get(name, {}) | ({"colours": 1} if colour == "y" else {})
    network = WholeNetwork(WholeConfig(name, 2, 1, settings, colour, input_range)).eval().requires_grad_(False)
    if colour == "rgb":
        _temper(network.body, 255 if input_range == "0..255" else 1, lambda: network.unclamped(photographs(16, 16)))
    return network


def expected(network: WholeNetwork, image: torch.Tensor) -> torch.Tensor:
    return (network(image.permute(2, 0, 1)[None] / 255)[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte()


@pytest.mark.parametrize("name", network_names())
def test_the_road_gives_what_the_network_gives(name):
    network = whole_network(name)
    plan = CudaGraphPlanner(network, CPU, torch.float32).plan(21, 30, 0)
    for seed in (1, 2):
        image = picture(21, 30, seed)
        plan.start()
        assert_nearly(plan.run(image), expected(network, image))
        assert bool(plan.finite)
        assert plan.chosen() == 0


@pytest.mark.parametrize(
    ("name", "colour", "input_range"),
    [
        *((name, "rgb", "0..1") for name in network_names()),
        *(
            ("fsrcnn", colour, given)
            for given in INPUT_RANGES
            for colour in COLOURS
            if ONLY.get(given, colour) == colour
        ),
    ],
)
def test_nothing_on_the_road_reads_a_value_back(name, colour, input_range):
    plan = CudaGraphPlanner(whole_network(name, colour, input_range), CPU, torch.float32).plan(21, 30, 0)
    with torch.no_grad(), CaptureGuard() as guard:
        plan._run_all(False, 0)
    assert "convolution" in guard.seen


@pytest.mark.filterwarnings("error:.*cannot be captured")
@pytest.mark.parametrize("name", ["fsrcnn", "rfdn", "srresnet"])
def test_a_captured_road_replays_on_other_images(name, graphs):  # noqa: F811
    network = whole_network(name)
    planner = capturing(CudaGraphPlanner(network, graphs, torch.float32 if graphs == CPU else None), graphs)
    plan = planner.plan(21, 30, 0)
    plan.warm()
    for seed in (1, 2):
        image = picture(21, 30, seed)
        plan.start()
        assert_alike(plan.run(image), expected(network.cpu(), image))
        assert bool(plan.finite)


def test_whole_photographs_in_a_graph_are_float16_and_widened(graphs, monkeypatch):  # noqa: F811
    if graphs == CPU:

        def prepare(network, device, dtype, runtime):
            return capturing(CudaGraphPlanner(network, CPU, dtype), CPU), {}

        monkeypatch.setattr(runtimes, "prepare", prepare)
    network, image = whole_network("fsrcnn"), picture(20, 28)
    model = MaskGuidedSR(network, device=graphs.type)
    assert re.fullmatch("float16(, | with .*)in a CUDA graph", model.info()["photographs"])
    assert_alike(torch.from_numpy(model.upscale(image.numpy())), expected(network.cpu(), image))
    for parameter in network.body.first_part.parameters():
        parameter.mul_(1e6)
    model = MaskGuidedSR(network, device=graphs.type)
    with pytest.warns(UserWarning, match="not finite in float16"):
        model.upscale(image.numpy())
    assert re.fullmatch("(bfloat16|float32)(, | with .*)in a CUDA graph", model.info()["photographs"])


@pytest.mark.parametrize("whole", [False, True])
def test_every_network_has_a_graph_on_a_gpu(whole, monkeypatch):
    """Published ones, which run whole, were left to PyTorch there: kernel by kernel, in TF32, from pageable memory."""
    from network_zoo import random_model

    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # where there is one, it would be timed
    monkeypatch.setattr(CudaGraphPlanner, "__init__", lambda self, *given: made.append(given))
    network, device = whole_network("rfdn") if whole else random_model("rfdn", 2), torch.device("cuda")
    planner, refused = choose.prepare(network, device, None)
    assert made == [(network, device, None)]
    assert isinstance(planner, CudaGraphPlanner)
    assert refused == {}
