"""The plan for GPUs, run on the CPU: what it computes, and that a graph could capture it."""

import re

import numpy as np
import pytest
import torch
from capture_guard import CaptureGuard, NotCapturable
from fake_graph import fake_graphs as fake_graphs
from network_zoo import random_model

from mga_kernels import MaskGuidedSR, ops, runtimes
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.runtimes.cuda import replayed
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner

pytestmark = pytest.mark.usefixtures("free_choice")
CPU = torch.device("cpu")
MODELS = [("fsrcnn", {}), ("pan", {}), ("rfdn", {}), ("srresnet", {}), ("rcan", {})]
OTHERS = [
    ("srresnet", {"base": {"norm": "none"}, "refine": {"norm": "none"}}),
    ("fsrcnn", {"refine": {"sees_halo": True}}),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(height: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def expected(network: MaskGuidedNetwork, image: torch.Tensor, k: int, variant: str = "masked", **more) -> torch.Tensor:
    """Bytes by the network itself in float32."""
    tensor = image.permute(2, 0, 1)[None] / 255
    return (network(tensor, k, variant, **more)[0].permute(1, 2, 0) * 255).round().byte()


def assert_nearly(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but where a value lies between two bytes."""
    assert float(wanted.float().std()) > 10, "a flat picture proves nothing"
    difference = (found.int() - wanted.int()).abs()
    assert int(difference.max()) <= 1
    assert float(difference.float().mean()) < 0.001


@pytest.mark.parametrize(("name", "settings"), [*MODELS, *OTHERS])
def test_the_road_gives_what_the_network_gives(name, settings):
    network = random_model(name, 4, **settings)
    plan = CudaGraphPlanner(network, CPU, torch.float32).plan(21, 30, 9)
    for seed in (1, 2):  # the second time with the buffers as the first one left them
        image = picture(21, 30, seed)
        plan.start()
        assert_nearly(plan.run(image), expected(network, image, 9))
        assert bool(plan.finite)
        assert plan.chosen() == 9
        assert_nearly(plan.run(image, k=0), expected(network, image, 0))
        assert plan.chosen() == 0
        assert_nearly(plan.dense(image), expected(network, image, 0, "decomposed"))


def test_results_stay_when_the_next_image_comes():
    network = random_model("fsrcnn", 2)
    plan = CudaGraphPlanner(network, CPU, torch.float32).plan(16, 24, 5)
    images = [picture(16, 24, seed) for seed in range(4)]
    pending, found = [], []
    for image in images:  # two in flight
        pending.append(plan.begin(image))
        if len(pending) == replayed.IN_FLIGHT:
            found.append(plan.finish(pending.pop(0)))
    found.append(plan.finish(pending.pop()))
    for image, result in zip(images, found, strict=True):
        assert_nearly(result, expected(network, image, 5))


def test_a_threshold_counts_what_was_refined():
    network = random_model("fsrcnn", 2)
    plan = CudaGraphPlanner(network, CPU, torch.float32).plan(16, 24, 20)
    image = picture(16, 24)
    with torch.inference_mode():
        plan.coarse(image, None)
        mask, _ = plan.select(20)
    plan.threshold = float(mask.flatten().sort(descending=True).values[6:8].mean())
    plan.start()
    assert_nearly(plan.run(image), expected(network, image, 20, threshold=plan.threshold))
    assert plan.chosen() == 7


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("name", "settings"), [*MODELS, *OTHERS])
def test_nothing_on_the_road_reads_a_value_back(name, settings, dense):
    network = random_model(name, 4, **settings)
    plan = CudaGraphPlanner(network, CPU, torch.float32).plan(21, 30, 9)
    with torch.no_grad(), CaptureGuard() as guard:  # inference mode would hide what composite operators call
        plan._run_all(dense, 9)
    assert "convolution" in guard.seen
    assert dense or "filter_and_select" in guard.seen


def test_the_mask_that_costs_nothing_reads_nothing_back():
    """And has one operator for what is seen in the coarse picture, on GPUs too."""
    plan = CudaGraphPlanner(random_model("fsrcnn", 4), CPU, torch.float32).plan(21, 30, 9)
    plan.free = True
    with torch.no_grad(), CaptureGuard() as guard:
        plan._run_all(False, 9)
    assert {"high_pass", "select_patches"} <= guard.seen
    assert "triton" in ops.operators()["high_pass"].backends


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool((x > 0).all()),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: torch.equal(x, x),
        lambda x: x.to("meta"),
    ],
)
def test_the_guard_finds_what_cannot_be_captured(wrong):
    with pytest.raises(NotCapturable), CaptureGuard():
        wrong(torch.ones(2))


on_a_gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.fixture(params=[pytest.param("cuda", marks=on_a_gpu)])
def gpu(request) -> torch.device:
    return torch.device(request.param, 0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=on_a_gpu)])
def graphs(request) -> torch.device:
    """A device on which graphs are captured: a GPU, and the CPU with graphs that record and replay operators."""
    if request.param == "cuda":
        return torch.device("cuda", 0)
    request.getfixturevalue("fake_graphs")
    return CPU


def capturing(planner, device: torch.device):
    planner.wants_graph = planner.wants_graph or device.type == "cpu"
    return planner


def assert_alike(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Two pictures of one network in other arithmetic, where cells near the limit may be chosen differently."""
    assert float(wanted.float().std()) > 10, "a flat picture proves nothing"
    difference = (found.int() - wanted.int()).abs().float()
    assert float(difference.mean()) < 1


@pytest.mark.filterwarnings("error:.*cannot be captured")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "settings"), [*MODELS, *OTHERS])
def test_a_captured_road_replays_on_other_images(name, settings, dtype, graphs):
    if graphs == CPU and (dtype != torch.float32 or name in ("rcan", "pan")):
        pytest.skip("other arithmetic and more blocks show nothing about graphs, and take long on a CPU")
    network, k = random_model(name, 4, **settings), 6 if name == "fsrcnn" else 7  # none that 16 bits choose otherwise
    made = [CudaGraphPlanner(network, graphs, dtype, captured=captured) for captured in (True, False)]
    capturing(made[0], graphs)
    graph, launches = (planner.plan(21, 30, k) for planner in made)
    graph.warm()
    for seed in range(3):
        image = picture(21, 30, seed)
        graph.start()
        found = graph.run(image)
        assert_alike(found, launches.run(image))
        assert_alike(found, expected(network, image, k))
        assert bool(graph.finite)
        assert graph.chosen() == k
        assert_alike(graph.dense(image), launches.dense(image))
        assert_alike(graph.dense(image), expected(network, image, 0, "decomposed"))  # of which nothing is chosen
    assert "in a CUDA graph" in made[0].description
    assert "uncaptured" in made[1].description


def test_a_replay_waits_for_nothing_but_the_result(gpu):
    """One graph launch for each image, and no synchronisation that torch knows of until the result is asked for."""
    plan = CudaGraphPlanner(random_model("rfdn", 4), gpu).plan(64, 80, 9)
    plan.warm()  # of each of its slots, so that none is captured where waiting is an error
    image = picture(64, 80)
    wanted = plan.run(image)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = plan.begin(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(plan.finish(pending), wanted)
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        for _ in range(3):
            plan.run(image)
    launches = [event.name for event in profile.events() if "GraphLaunch" in event.name]
    assert len(launches) == 3


def loud_network(scale: int) -> MaskGuidedNetwork:
    """With values that float16 cannot hold, and bfloat16 can."""
    loud = random_model("fsrcnn", scale)
    loud.base.mid_part[0].weight.mul_(1e6)
    loud.base.mid_part[0].bias.mul_(1e6)
    return loud


def test_photographs_in_a_graph_are_float16_and_widened(graphs, monkeypatch):
    """On the CPU by the planner of a GPU, so that what the test expects has been true once."""
    if graphs == CPU:

        def prepare(network, device, dtype, runtime):
            return capturing(CudaGraphPlanner(network, CPU, dtype), CPU), {}

        monkeypatch.setattr(runtimes, "prepare", prepare)
    network = random_model("fsrcnn", 2)
    image = picture(20, 28).numpy()
    model = MaskGuidedSR(network, k=4, device=graphs.type)
    assert re.fullmatch("float16(, | with .*)in a CUDA graph", model.info()["photographs"])
    assert_alike(torch.from_numpy(model.upscale(image)), expected(network.cpu(), torch.from_numpy(image), 4))
    model = MaskGuidedSR(loud_network(2), k=4, device=graphs.type)
    with pytest.warns(UserWarning, match="not finite in float16"):
        model.upscale(image)
    assert re.fullmatch("(bfloat16|float32)(, | with .*)in a CUDA graph", model.info()["photographs"])


def test_on_the_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    network, image = random_model("fsrcnn", 2), picture(20, 28)
    plan = CudaGraphPlanner(network, torch.device("cuda:1")).plan(20, 28, 4)
    assert_alike(plan.run(image), expected(network, image, 4))
    assert torch.cuda.current_device() == 0
