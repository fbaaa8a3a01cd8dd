"""Plans for GPUs in convolutions of our own, run on the CPU, where definitions stand for the kernel."""

import json
from pathlib import Path

import pytest
import torch
from capture_guard import CaptureGuard
from network_zoo import random_model
from test_cuda_graph import CPU, expected, one_thread, picture  # noqa: F401
from test_cuda_whole import expected as expected_whole
from test_cuda_whole import whole_network
from torch.utils._python_dispatch import _disable_current_modes

from mga_kernels import ops
from mga_kernels.modes import ordinary
from mga_kernels.networks import ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.ops.convolve_pixels.layout import STEP
from mga_kernels.runtimes.cuda.own import OwnPlanner

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")
META = torch.device("meta")
ROOT = Path(__file__).resolve().parent.parent
CHOSEN = 6
MASKED = ["fsrcnn", "pan", "rfdn", "srresnet", "rcan", "imdn"]
WHOLE = ["span", "compact", "rrdbnet", "edsr", "msrresnet", "imdn"]


@pytest.fixture
def gpu_floors(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu_floors

    return gpu_floors


def planner_of(network, device=CPU, dtype=None) -> OwnPlanner:
    planner = OwnPlanner.of(network, device, dtype)
    assert isinstance(planner, OwnPlanner), planner
    return planner


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """As near as float16 maps lead."""
    assert float(wanted.float().std()) > 5, "a flat picture proves nothing"
    difference = (found.int() - wanted.int()).abs().float()
    assert float(difference.max()) <= 2
    assert float(difference.mean()) < 0.1


@pytest.mark.parametrize("name", MASKED)
def test_mask_guided_networks(name):
    """Sides that are not whole cells; the second image finds nothing of the first."""
    network = random_model(name, 2)
    plan = planner_of(network).plan(15, 22, 5)
    plan.run(picture(15, 22, 2))
    image = picture(15, 22)
    plan.start()
    assert_close(plan.run(image), expected(network, image, 5))
    assert bool(plan.finite)
    assert plan.chosen() == 5


@pytest.mark.parametrize("name", ["fsrcnn", "pan", "rfdn", "imdn"])
def test_the_refine_net_over_all(name):
    network, image = random_model(name, 2), picture(16, 20)
    assert_close(planner_of(network).plan(16, 20, 1).dense(image), expected(network, image, 0, "decomposed"))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks(name):
    network, image = whole_network(name), picture(15, 22)
    plan = planner_of(network).plan(15, 22, 0)
    assert_close(plan.run(image), expected_whole(network, image))
    assert bool(plan.finite)
    assert plan.planner.description == "float16 with float32 sums, in convolutions of our own, uncaptured"


@pytest.mark.parametrize("name", [*MASKED, *WHOLE])
def test_nothing_on_the_road_reads_a_value_back(name, gpu_floors):
    """Tensors without values have none that could be read; so they run, too, where nothing has memory."""
    network = random_model(name, 2) if name in MASKED else whole_network(name)
    roads = [(False, 5), (True, 0)] if name in MASKED else [(False, 0)]
    for dense, k in roads:
        launches = gpu_floors.walk(planner_of(network, META), dense, k, 15, 22)
        assert sum(each.name == "convolve_pixels_" for each in launches) > 2


@pytest.fixture
def opaque_definition(monkeypatch):
    """Of the convolution, which stands for a kernel here: what it does is no matter of capturing."""
    backend = ops.operators()["convolve_pixels_"].backends["reference"]
    run = backend.run

    def hidden(*given):
        with _disable_current_modes():
            return run(*given)

    monkeypatch.setattr(backend, "run", hidden)


@pytest.mark.usefixtures("opaque_definition")
@pytest.mark.parametrize("name", [*MASKED, *WHOLE])
def test_nothing_is_read_back_of_tensors_that_have_values(name):
    """Where those without any take another road."""
    network = random_model(name, 2) if name in MASKED else whole_network(name)
    plan = planner_of(network).plan(15, 22, 5 if name in MASKED else 0)
    plan.run(picture(15, 22))
    for dense in (False, True) if name in MASKED else (False,):
        with ordinary(), CaptureGuard() as guard:
            plan._run_all(dense, plan.capacity, 0)
        assert "image_to_input" in guard.seen or len(guard.seen) > 5


def test_what_spares_a_cpus_caches_costs_no_launches(gpu_floors):
    """RFDN's attention of patches goes through strips of them on a CPU, and writes channel by channel."""
    planner = planner_of(random_model("rfdn", 4), META)
    few, many = (len(gpu_floors.walk(planner, False, k, 540, 960)) for k in (64, 992))  # whole rows
    assert few == many


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", [*MASKED, *WHOLE])  # in float16 first, which is what runs unasked
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu_the_kernels_make_the_same_picture(name, dtype):
    """In a graph, of two images in flight; of so many cells that 16 bits choose no other ones."""
    masked = name in MASKED
    network = random_model(name, 2) if masked else whole_network(name)
    images = [picture(31, 46, seed) for seed in (1, 2)]
    wanted = [expected(network, image, CHOSEN) if masked else expected_whole(network, image) for image in images]
    plan = planner_of(network, torch.device("cuda"), dtype).plan(31, 46, CHOSEN if masked else 0)
    pending = [plan.begin(image) for image in images]
    for slot, right in zip(pending, wanted, strict=True):
        difference = (plan.finish(slot).int() - right.int()).abs().float()
        assert float(difference.mean()) < (0.2 if dtype == torch.float16 else 1.5)
        assert bool(plan.finite)
    assert plan.planner.description.endswith("in a CUDA graph")
    assert plan.device == plan.flag.device, "else pictures of whole cells go through a canvas"


def test_a_picture_that_is_not_finite_is_told(generator):
    network, image = whole_network("compact"), picture(15, 22)
    for layer in network.body.body[:2]:
        layer.weight *= 1e5
    plan = planner_of(network).plan(15, 22, 0)
    plan.run(image)
    assert not bool(plan.finite)
    plan = planner_of(network, dtype=torch.bfloat16).plan(15, 22, 0)
    plan.run(image)
    assert bool(plan.finite)


def test_what_has_none_says_why():
    network = whole_network("compact")
    assert "float32 was asked for" in OwnPlanner.of(network, CPU, torch.float32)
    assert "there are none for imdn-split yet" in OwnPlanner.of(random_model("imdn-split", 2), CPU)
    enlarged = WholeNetwork(WholeConfig("compact", 2, 2, {"enlarged": 4})).eval()
    assert "enlarged 4 times and shrunk to 2" in OwnPlanner.of(enlarged, CPU)


def test_memory_is_counted_before_it_is_taken():
    planner = planner_of(whole_network("span"))
    small, large = (planner.bytes_needed(side, side, 0) for side in (32, 64))
    assert 3 < large / small < 4.1
    plan = planner.plan(64, 64, 0)
    plan.run(picture(64, 64))
    held = [*plan.inner.tensors, *plan.inner.area.rooms.maps.values()]
    held += [tensor for slot in plan._slots for tensor in (slot.image, slot.picture)]
    # One picture more, of whole cells, is for sizes that are none.
    assert sum(tensor.nbytes for tensor in held) == large - plan._slots[0].picture.nbytes
    assert all(tensor.shape[2] % STEP == 0 for tensor in plan.inner.area.rooms.maps.values())


def test_the_committed_table_has_these_plans():
    rows = json.loads((ROOT / "bench/results/gpu_floors.json").read_text())["rows"]
    roads = {(row["network"], row["road"]) for row in rows}
    assert {(name, "-M, own convolutions") for name in MASKED} <= roads
    assert {(name, "whole, own convolutions") for name in WHOLE} <= roads
    assert ModelConfig("rfdn", 4).k == 1000  # of which they speak


def test_each_slot_has_a_road_of_its_own_from_its_bytes_to_its_picture():
    """Nothing is copied between them where the image is whole cells."""
    plan = planner_of(random_model("fsrcnn", 2)).plan(16, 24, 5)
    first, second = plan._slots
    images = picture(16, 24, 1), picture(16, 24, 2)
    for slot, image in zip(plan._slots, images, strict=True):
        slot.image.copy_(image)
        slot.picture.zero_()
    plan._run_all(False, 5, 1)
    assert not first.picture.any()
    assert second.picture.any()
    assert plan._canvas is None
    pending = [plan.begin(image) for image in images]
    found = [plan.finish(begun) for begun in pending]
    assert not torch.equal(*found)
    assert all(torch.equal(one, slot.picture) for one, slot in zip(found, plan._slots, strict=True))
    assert len(plan._replays) == 2
