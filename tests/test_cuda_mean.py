"""Networks of which a refined cell is the mean of two, in convolutions of our own for GPUs, run on the CPU."""

from dataclasses import replace

import pytest
import torch
from capture_guard import CaptureGuard
from test_cuda_graph import CPU, one_thread  # noqa: F401
from test_cuda_own import META, assert_close, planner_of
from test_cuda_own import gpu_floors as gpu_floors
from test_cuda_regions import HEIGHT, WIDTH, inside, photograph, plan_of
from test_mean_of_two import WITH_PLACE
from test_regions import network_of

from mga_kernels.networks import RegionNetwork
from mga_kernels.runtimes.cuda.own import OwnPlanner, OwnRegions
from mga_kernels.runtimes.cuda.pixels import Pixels

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")


def averaging(base=None) -> RegionNetwork:
    network = network_of("compact", mean=True)
    if base is None:
        return network
    return RegionNetwork(replace(network.config, base=base)).eval().requires_grad_(False)


def halves_to_even(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return ((one.double() + other.double()) / 2).round().byte()


@pytest.mark.parametrize("base", [None, WITH_PLACE])
def test_refined_cells_are_the_mean_of_the_two_alone_and_others_the_base_nets(base):
    """Bit by bit, twice; RFDN is a Base-Net that must know where a tile stands."""
    network, image = averaging(base), photograph()
    plan = plan_of(network, torch.float16)
    base_alone, refine_alone = (
        OwnPlanner.of(part, CPU).plan(HEIGHT, WIDTH, 0).run(image) for part in (network.base, network.refine)
    )
    both = halves_to_even(base_alone, refine_alone)
    assert not torch.equal(both, base_alone)
    for _ in range(2):
        plan.start()
        plan.coarse(image, plan.buffer())
        plan.shown = base_alone
        cells = inside(plan, plan.grid_of(plan.select(9)[1]))
        assert 0 < int(cells.sum()) < cells.numel()
        plan.start()
        assert torch.equal(plan.run(image, 9), torch.where(cells[..., None], both, base_alone))
        assert torch.equal(plan.run(image), both)
        assert torch.equal(plan.dense(image), both)
        assert torch.equal(plan.run(image, 0), base_alone)


def test_the_picture_is_the_definition():
    network, image = averaging(), photograph()
    planner = planner_of(network)
    plan = planner.plan(HEIGHT, WIDTH, 9)
    assert isinstance(plan, OwnRegions)
    wanted = network(image.permute(2, 0, 1)[None] / 255, 9)[0].permute(1, 2, 0)
    assert_close(plan.run(image), (wanted * 255).round().byte())
    assert planner.description.endswith("in convolutions of our own, in regions, uncaptured")


def test_nothing_on_the_road_reads_a_value_back_or_goes_through_strips(gpu_floors):
    """The mean is of whole pictures: the strips in which a CPU takes it would be hundreds of launches at 4K."""
    launches = {}
    for mean in (False, True):
        plan = plan_of(network_of("compact", mean=mean), torch.float16, META, size=(540, 960))
        with torch.no_grad(), gpu_floors.one_launch_each():
            plan._run_all(False, 100)
            with CaptureGuard(), gpu_floors.Counter() as counter:
                plan._run_all(False, 100)
            launches[mean] = len(counter.launches)
    assert 0 < launches[True] - launches[False] <= 9


def test_memory_of_the_mean_is_counted():
    usual, both = (OwnPlanner.of(network_of("compact", mean=mean), META) for mean in (False, True))
    picture = 3 * 16 * 540 * 960
    # The one that is averaged with, and two on the way.
    assert both.bytes_needed(540, 960, 10) - usual.bytes_needed(540, 960, 10) == 3 * picture
    assert isinstance(usual.storage, Pixels)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_a_graph_makes_the_mean():
    network = averaging()
    plan = OwnPlanner.of(network, torch.device("cuda")).plan(HEIGHT, WIDTH, 45)
    parts = [OwnPlanner.of(part, torch.device("cuda")) for part in (network.base, network.refine)]
    for seed in (1, 2, 3):
        image = photograph(seed)
        both = halves_to_even(*(part.plan(HEIGHT, WIDTH, 0).run(image) for part in parts))
        difference = (plan.run(image).int() - both.int()).abs()
        assert int(difference.max()) <= 1
        assert float(difference.float().mean()) < 0.01, "the same kernels, over lists"
        assert bool(plan.finite)
    assert plan.planner.description.endswith("in regions, in a CUDA graph")
