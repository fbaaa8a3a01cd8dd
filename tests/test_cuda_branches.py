"""Networks with classes whose branches are no FSRCNN, in convolutions of our own for GPUs, run on the CPU.

In a graph they are tested with the kernels, in triton_plans.py.
"""

import pytest
import torch
from capture_guard import CaptureGuard
from network_zoo import _temper, photographs
from test_classes import sorting
from test_cuda_classes import photograph
from test_cuda_graph import CPU, one_thread  # noqa: F401
from test_cuda_own import META, assert_close, planner_of
from test_cuda_own import gpu_floors as gpu_floors

from mga_kernels.networks import ClassConfig, ClassNetwork, WholeConfig
from mga_kernels.networks.classes import Classifier
from mga_kernels.runtimes.cuda.own import OwnClasses, OwnPlanner

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")
WIDTHS = {"channels": 16}, {"channels": 24}, {"channels": 24}
# The settings of each branch: of the image added to an early or to the last map, of maps at scales between, of parts.
BRANCHES = {
    "compact": WIDTHS,
    "span": WIDTHS,
    "msrresnet": WIDTHS,
    "edsr": WIDTHS,
    "simplified_imdn": ({}, {}, {}),
    "rrdbnet": ({}, {}, {}),
}
TILES, PARTS = (16, 14), (12, 10)  # window and step of sub-images that are whole tiles and that are not
CASES = [(name, 2, TILES, (16, 40)) for name in BRANCHES]
CASES += [("msrresnet", 4, PARTS, (14, 24)), ("compact", 3, PARTS, (14, 30)), ("edsr", 4, PARTS, (14, 30))]


def branched(name: str, scale: int = 2, sides: tuple = TILES, size: tuple = (150, 190)) -> ClassNetwork:
    """With sub-images in several classes, of pictures of that size."""
    torch.manual_seed(0)
    branches = tuple(WholeConfig(name, scale, 1, settings) for settings in BRANCHES[name])
    network = ClassNetwork(ClassConfig(branches, *sides))
    torch.manual_seed(3)
    network.classifier = Classifier(len(branches))
    sorting(network.eval().requires_grad_(False), *size)
    for branch in network.branches:
        _temper(branch.body, 1, lambda branch=branch: branch.unclamped(photographs(16, 16)))
    return network


def by_bytes(network: ClassNetwork, image: torch.Tensor) -> torch.Tensor:
    """The definition, with means of bytes, halves upwards."""
    cut = network.cut(image.permute(2, 0, 1)[None] / 255)
    classes = network.classes(cut)
    assert len(set(classes.tolist())) > 1, "one branch alone proves nothing"
    made = (network.restored(cut, classes) * 255).round()
    return network.merged(made, *image.shape[:2])[0].permute(1, 2, 0).add(0.5).floor().byte()


@pytest.mark.parametrize(("name", "scale", "sides", "size"), CASES)
def test_pictures_are_the_definition(name, scale, sides, size):
    """The second image, whose sub-images are of other classes, finds nothing of the first."""
    network = branched(name, scale, sides, size)
    plan = planner_of(network).plan(*size, 0)
    assert isinstance(plan, OwnClasses)
    for flipped in (True, False):
        image = photograph(*size, flipped)
        plan.start()
        assert_close(plan.run(image), by_bytes(network, image))
        assert bool(plan.finite)


@pytest.mark.parametrize("name", ["msrresnet", "edsr"])
def test_what_maps_held_leaves_no_trace(name):
    """Of whatever was in the tiles of sub-images; between them are zeros, which nothing writes."""
    network, image = branched(name, 2, PARTS), photograph(14, 30)
    wanted = planner_of(network).plan(14, 30, 0).run(image)
    plan = planner_of(network).plan(14, 30, 0)
    plan.run(photograph(14, 30, flipped=True))
    places = plan.inner.places
    maps = [*plan.inner.grid.rooms.maps.values(), *(plane.data for plane in plan.inner.planes.values())]
    assert len(maps) > 3
    for held in maps:
        scale = held.shape[0] // places.raster[0]
        row, column = (torch.arange(n) % (scale * p) for n, p in zip(held.shape, places.period, strict=False))
        inside = (row < scale * places.size[0])[:, None] & (column < scale * places.size[1])
        assert not held[~inside].any()
        held[inside] = torch.nan
    plan.start()
    assert torch.equal(plan.run(image), wanted)
    assert bool(plan.finite)


@pytest.mark.parametrize("name", BRANCHES)
def test_nothing_on_the_road_reads_a_value_back(name, gpu_floors):
    plan = planner_of(branched(name), META).plan(61, 92, 0)
    with torch.no_grad(), gpu_floors.one_launch_each():
        plan._run_all(False, 0)
        with CaptureGuard() as guard:
            plan._run_all(False, 0)
    assert "convolve_pixels_" in guard.seen


@pytest.mark.parametrize("name", ["compact", "msrresnet"])
def test_memory_is_counted_before_it_is_taken(name):
    planner = planner_of(branched(name))
    plan = planner.plan(30, 40, 0)
    plan.run(photograph(30, 40))
    held = [*plan.inner.tensors, *plan.inner.grid.rooms.maps.values()]
    held += [tensor for slot in plan._slots for tensor in (slot.image, slot.picture)]
    counted, taken = planner.bytes_needed(30, 40, 0), sum(tensor.nbytes for tensor in held)
    assert 0.7 * counted < taken <= counted


@pytest.mark.parametrize("name", ["srresnet", "rcan", "imdn"])
def test_what_measures_sub_images_says_so(name):
    network = ClassNetwork(ClassConfig((WholeConfig(name, 2, 1), WholeConfig(name, 2, 1)))).eval()
    reason = f"{name} has steps between its convolutions that need a whole sub-image"
    assert OwnPlanner.of(network, CPU) == reason
