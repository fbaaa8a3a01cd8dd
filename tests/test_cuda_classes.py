"""Networks with classes in convolutions of our own for GPUs, run on the CPU: lists by classes, and pictures.

In a graph they are tested with the kernels, in triton_plans.py.
"""

import pytest
import torch
from capture_guard import CaptureGuard
from test_classes import config_of, network_of, picture_of
from test_cuda_graph import CPU, assert_alike, one_thread  # noqa: F401
from test_cuda_own import META, assert_close, planner_of
from test_cuda_own import gpu_floors as gpu_floors

from mga_kernels.networks import ClassConfig, ClassNetwork, WholeConfig
from mga_kernels.ops.convolve_pixels.layout import TILE
from mga_kernels.runtimes.choose import prepare
from mga_kernels.runtimes.cpu.class_plan import ClassWeights
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cuda import choice
from mga_kernels.runtimes.cuda.classes import Places
from mga_kernels.runtimes.cuda.own import OwnClasses, OwnPlanner
from mga_kernels.runtimes.pytorch.modules import ModulePlanner

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")
USUAL = {"window": 32, "step": 28}
SMALL = {"window": 16, "step": 12}
SIZES = [(33, 31), (32, 64), (5, 40), (20, 24), (1, 1)]
CASES = [*((size, 2, USUAL) for size in SIZES), ((33, 60), 3, USUAL), ((1, 1), 4, USUAL), ((61, 45), 4, SMALL)]


def small_network(scale: int = 2, **settings) -> ClassNetwork:
    return network_of(config_of(scale, **(settings or SMALL)))


def photograph(height: int, width: int, flipped: bool = False) -> torch.Tensor:
    image = torch.from_numpy(picture_of(height, width))
    return image.flip(1) if flipped else image  # what is smooth on the left is on the right then


def expected(network: ClassNetwork, image: torch.Tensor) -> torch.Tensor:
    return (network(image.permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0) * 255).round().byte()


@pytest.mark.parametrize(("size", "scale", "settings"), CASES)
def test_pictures_are_those_of_the_plan_for_cpus(size, scale, settings):
    """Which has float32 maps, and means of bytes too; the second image finds nothing of the first."""
    network = small_network(scale, **settings)
    plan = planner_of(network).plan(*size, 0)
    assert isinstance(plan, OwnClasses)
    usual = ClassWeights.of(network, Maps()).plan(*size, 0)
    for flipped in (True, False):
        image = photograph(*size, flipped)
        plan.start()
        found, wanted = plan.run(image), usual.run(image)
        assert found.shape == (size[0] * scale, size[1] * scale, 3)
        difference = (found.int() - wanted.int()).abs().float()
        assert float(difference.max()) <= 1
        assert int(difference.sum()) <= max(1, 0.03 * difference.numel())
        assert bool(plan.finite)
        assert plan.chosen() == 0
        assert plan.inner.parts == ""  # it is in one piece


def test_pictures_are_the_definition():
    """But for the bytes that means are of, and float16."""
    network, image = small_network(**USUAL), photograph(61, 92)
    assert_close(planner_of(network).plan(61, 92, 0).run(image), expected(network, image))


def test_sub_images_and_their_classes_are_those_of_the_network():
    network, image = small_network(), photograph(61, 92)
    plan = planner_of(network).plan(61, 92, 0).inner
    plan.coarse(image, plan.buffer())
    cut = network.cut(image.permute(2, 0, 1)[None] / 255)
    assert torch.equal(plan._sub_images(), cut)
    classes = network.classes(cut)
    assert len(set(classes.tolist())) > 1, "the other tests prove nothing without"
    owner = owners(plan.places)
    for number, listed in enumerate(plan.places.lists[1]):
        tiles = listed.tiles[: int(listed.length)].tolist()
        assert {owner[tile] for tile in tiles} == set((classes == number).nonzero().flatten().tolist())
        assert len(tiles) == 2 * int((classes == number).sum())


def owners(places: Places, scale: int = 1) -> dict[int, int]:
    """Of each tile of maps that are enlarged, by its number, the sub-image that it is of."""
    owner, tiles = places.tiles[scale]
    found = dict(zip(tiles.tolist(), owner.tolist(), strict=True))
    assert len(found) == len(tiles)
    return found


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (20, 24), (8, 17)])
def test_between_sub_images_there_is_a_tile_of_zeros(size, scale):
    """In whatever class a neighbour is: of every tile that is listed no neighbour but those of the same sub-image."""
    places = Places(3, 4, size, [1, scale])
    across = places.raster[1] * scale // TILE[1]
    owner = owners(places, scale)
    period, size = ([scale * side for side in sides] for sides in (places.period, size))
    for tile, sub_image in owner.items():
        near = [tile + y * across + x for y in (-1, 0, 1) for x in (-1, 0, 1) if 0 <= tile % across + x < across]
        assert {owner[other] for other in near if other in owner} == {sub_image}
        row, column = tile // across * TILE[0], tile % across * TILE[1]
        assert (row // period[0], column // period[1]) == divmod(sub_image, 4)
        assert row % period[0] < size[0]
        assert column % period[1] < size[1]
    assert len(owner) == 12 * -(-size[0] // TILE[0]) * -(-size[1] // TILE[1])
    whole = scale == 1 and size == [32, 32]
    assert scale > 1 or places.ends == (() if whole else (*places.period, 0, *size))


@pytest.mark.parametrize("size", [(31, 45), (11, 50)])
def test_what_maps_held_leaves_no_trace(size):
    """Where sub-images lie; between them are the zeros that they rely on, which nothing may write."""
    plan, image = planner_of(small_network()).plan(*size, 0), photograph(*size)
    plan.run(photograph(*size, flipped=True))
    wanted = planner_of(small_network()).plan(*size, 0).run(image)
    places, maps = plan.inner.places, plan.inner.grid.rooms.maps
    across = places.raster[1] // TILE[1]
    inside = torch.zeros(places.raster[0] // TILE[0] * across, dtype=torch.bool)
    inside[list(owners(places))] = True
    pixels = inside.view(-1, across).repeat_interleave(TILE[0], 0).repeat_interleave(TILE[1], 1)
    assert maps
    for held in maps.values():
        assert not held[~pixels].any()
        held[pixels] = torch.nan
    plan.start()
    assert torch.equal(plan.run(image), wanted)
    assert bool(plan.finite)


@pytest.mark.parametrize("step", [32, 28, 13])
def test_means_are_of_all_sub_images_that_overlap(step):
    """Also of three, of steps that leave none, and where the last begins just beside the one before it."""
    branches = tuple(WholeConfig("fsrcnn", 2, 1, {"expanded": width}) for width in (16, 24))
    network = ClassNetwork(ClassConfig(branches, step=step)).eval().requires_grad_(False)
    for size in ((61, 71), (90, 33), (32, 200)):
        plan = planner_of(network).plan(*size, 0).inner
        made = plan.made
        made.copy_(torch.randint(0, 256, made.shape, dtype=torch.uint8))
        sub_images = made[0].unflatten(0, (len(plan.starts[0]), -1)).unflatten(2, (len(plan.starts[1]), -1))
        sub_images = sub_images[:, :64, :, :64].permute(0, 2, 4, 1, 3).flatten(0, 1).double()
        means = network.merged(sub_images, *size)[0].permute(1, 2, 0)
        out = plan.buffer()
        plan._merge(out)
        assert float((out - means).abs().max()) <= 0.5
        assert int(plan.count.max()) > 1 or step == 32


def test_nothing_on_the_road_reads_a_value_back(gpu_floors):
    """One list for each class, made of what the classifier says; the launches do not depend on the image's size."""
    network = small_network(**USUAL)
    counts = []
    for size in ((61, 92), (300, 400)):
        plan = planner_of(network, META).plan(*size, 0)
        with torch.no_grad(), gpu_floors.one_launch_each():
            plan._run_all(False, 0)
            with CaptureGuard() as guard, gpu_floors.Counter() as counter:
                plan._run_all(False, 0)
        assert "convolve_pixels_" in guard.seen
        names = [each.name for each in counter.launches]
        assert names.count("scatter_") == 1
        assert names.count("convolve_pixels_") == sum(len(chain.stages) for chain in plan.inner.weights.chains)
        counts.append(len(names))
    assert counts[0] <= counts[1] <= counts[0] + 8  # of sums where sub-images overlap
    assert counts[1] < 70


def test_what_is_not_finite_is_told():
    network = small_network()
    network.branches[2].body.mid_part[0].weight *= 1e6
    plan = planner_of(network).plan(61, 92, 0)
    plan.run(photograph(61, 92))
    assert not bool(plan.finite)


def test_memory_is_counted_before_it_is_taken():
    planner = planner_of(small_network())
    plan = planner.plan(90, 110, 0)
    plan.run(photograph(90, 110))
    held = [*plan.inner.tensors, *plan.inner.grid.rooms.maps.values()]
    held += [tensor for slot in plan._slots for tensor in (slot.image, slot.picture)]
    counted, taken = planner.bytes_needed(90, 110, 0), sum(tensor.nbytes for tensor in held)
    assert 0.7 * counted < taken <= counted


def test_float32_is_not_among_its_types():
    assert "float32 was asked for" in OwnPlanner.of(small_network(), CPU, torch.float32)


@pytest.fixture
def chosen(monkeypatch):
    """``choice.fastest`` where there is a GPU that is none, and who raced."""
    raced = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice, "name_of", lambda device: "GPU of the table")
    monkeypatch.setattr(choice, "raced", lambda own, modules, cells: raced.append((own, modules, cells)) or own)
    return raced


def test_they_race_their_modules_in_float32_which_no_graph_holds(chosen):
    network = small_network()
    assert isinstance(choice.fastest(network, CPU, None), OwnPlanner)
    ((own, modules, cells),) = chosen
    assert type(modules) is ModulePlanner
    assert (own.storage.dtype, modules.dtype, cells) == (torch.float16, torch.float32, 0)
    image = photograph(61, 92)
    plans = [planner.plan(61, 92, 0) for planner in (own, modules)]
    assert_alike(*(plan.run(image) for plan in plans))
    choice.fastest(network, CPU, torch.bfloat16)
    _, modules, _ = chosen[-1]
    assert next(modules.network.classifier.parameters()).dtype == torch.float32
    assert_alike(modules.plan(61, 92, 0).run(image), expected(network, image))


def test_without_a_plan_of_our_own_pytorch_runs_them(chosen, monkeypatch):
    network = small_network()
    assert "float32 was asked for" in choice.fastest(network, CPU, torch.float32)
    monkeypatch.setattr(choice, "MEASURED", {"GPU of the table": {"fsrcnn x2 by classes": "modules"}})
    assert choice.fastest(network, CPU, None) == "the modules are known to be faster there"
    monkeypatch.setattr(type(network), "to", lambda self, *given, **named: self)
    planner, refused = prepare(network, torch.device("cuda"), None)
    assert type(planner) is ModulePlanner
    assert refused["a plan of our own"] == "the modules are known to be faster there"
    assert not chosen


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(61, 92), (11, 40)])
def test_on_a_gpu_one_graph_serves_every_class(size, dtype):
    network = small_network()
    plan = OwnPlanner.of(network, torch.device("cuda"), dtype).plan(*size, 0)
    images = [photograph(*size, flipped) for flipped in (False, True, False)]
    begun = [plan.begin(image) for image in images[:2]]
    found = [plan.finish(one) for one in begun] + [plan.run(images[2])]
    assert len(plan._replays) == 2
    for image, picture in zip(images, found, strict=True):
        assert_alike(picture, expected(network, image))
        assert bool(plan.finite)
    assert torch.equal(found[0], found[2])
    assert plan.planner.description.endswith("by classes, in a CUDA graph")
