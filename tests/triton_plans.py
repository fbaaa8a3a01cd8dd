"""Plans for GPUs in convolutions of our own with the kernels themselves, captured. test_triton_kernels.py runs it.

In the interpreter graphs record operators and replay them, on a GPU they are CUDA graphs. The images are of other cells
and other classes than the black one that was captured, and than one another.
"""

import pytest
import torch
from fake_graph import FakeGraph
from fake_graph import fake_graphs as fake_graphs
from test_classes import network_of as classes_of
from test_classes import picture_of, sorting
from triton_kernels import DEVICE, INTERPRETING

from mga_kernels import ops
from mga_kernels.networks import ClassConfig, ClassNetwork, RegionConfig, RegionNetwork, SRNetwork, WholeConfig
from mga_kernels.runtimes.cuda import replayed
from mga_kernels.runtimes.cuda.own import OwnPlanner

HEIGHT, WIDTH, CELLS = 16, 40, 3


def averaging() -> SRNetwork:
    """The mean of two networks; the halo is as far as the second one sees."""
    torch.manual_seed(4)
    base, refine = (WholeConfig("compact", 2, 1, {"channels": channels}) for channels in (12, 16))
    network = RegionNetwork(RegionConfig(base, refine, 8, 4, mean=True)).eval().requires_grad_(False)
    for parameter in network.parameters():  # what random networks make is hardly seen in bytes
        if parameter.ndim == 4:
            parameter.mul_(1.2)
    return network


def by_classes() -> SRNetwork:
    branches = tuple(WholeConfig("fsrcnn", 2, 1, {"expanded": width}) for width in (16, 24, 40))
    return classes_of(ClassConfig(branches, 16, 12))


def by_other_classes() -> SRNetwork:
    """To whose pictures the enlarged image is added, and whose maps are of two scales."""
    torch.manual_seed(5)
    branches = tuple(WholeConfig("msrresnet", 2, 1, {"channels": channels}) for channels in (12, 16, 16))
    return sorting(ClassNetwork(ClassConfig(branches, 16, 12)).eval().requires_grad_(False))


KINDS = {"mean of two": averaging, "classes": by_classes}
if not INTERPRETING:  # which takes minutes
    KINDS["classes of others"] = by_other_classes


@pytest.fixture
def graphs(request) -> None:
    """Of one slot, and after one run instead of three where each takes seconds."""
    if INTERPRETING:
        request.getfixturevalue("fake_graphs")
        request.getfixturevalue("monkeypatch").setattr(replayed, "WARM_UPS", 1)
        request.getfixturevalue("monkeypatch").setattr(replayed, "IN_FLIGHT", 1)


@pytest.mark.filterwarnings("error:.*cannot be captured")
@pytest.mark.parametrize("name", KINDS)
def test_a_graph_serves_images_of_other_cells_and_classes(name, graphs, monkeypatch):
    monkeypatch.delenv("MGA_BACKEND", raising=False)
    network = KINDS[name]()
    planner = OwnPlanner.of(network, torch.device(DEVICE))
    assert isinstance(planner, OwnPlanner), planner
    planner.wants_graph = True
    plan = planner.plan(HEIGHT, WIDTH, CELLS if network.masked else 0)
    for flipped in (False, True):
        image = torch.from_numpy(picture_of(HEIGHT, WIDTH))
        image = image.flip(1) if flipped else image
        tensor = image.permute(2, 0, 1)[None] / 255
        exact = network(tensor, CELLS)[0] if network.masked else network(tensor)[0]
        wanted = (exact.clamp(0, 1).permute(1, 2, 0) * 255).round()
        plan.start()
        found = plan.run(image)
        difference = (found.float() - wanted).abs()
        assert float(wanted.std()) > 5, "a flat picture proves nothing"
        assert float(difference.max()) <= 3
        assert float(difference.mean()) < 0.2
        assert bool(plan.finite)
        assert plan.chosen() == (CELLS if network.masked else 0)
    assert ops.last_backend("convolve_pixels_") == "triton"
    assert planner.description.endswith("in a CUDA graph")
    assert not INTERPRETING or FakeGraph.captures == 1
