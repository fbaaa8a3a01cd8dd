"""Networks that refine regions in convolutions of our own for GPUs, run on the CPU: lists of tiles, and pictures."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from capture_guard import CaptureGuard
from fake_graph import FakeGraph
from fake_graph import fake_graphs as fake_graphs
from film_networks import image_of
from test_cuda_graph import CPU, assert_nearly, capturing, one_thread  # noqa: F401
from test_cuda_own import gpu_floors as gpu_floors
from test_regions import network_of

from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig
from mga_kernels.ops.convolve_pixels.layout import TILE, tiles_of
from mga_kernels.runtimes.choose import prepare
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.region_plan import RegionWeights
from mga_kernels.runtimes.cuda import regions as pixel_regions
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnPlanner, OwnRegions, weights_of
from mga_kernels.runtimes.cuda.pixels import Pixels
from mga_kernels.runtimes.cuda.regions import Around, Boxes

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")
ROOT = Path(__file__).resolve().parent.parent
META = torch.device("meta")
REFINING = ["compact", "span", "msrresnet"]
HEIGHT, WIDTH = 40, 70  # 5 x 9 cells of 8, 5 x 5 tiles of the image


def plan_of(network, dtype=torch.float32, device=CPU, captured=True, size=(HEIGHT, WIDTH)) -> OwnRegions:
    """Also in float32, in which only tests run them."""
    storage = Pixels(dtype)
    weights = weights_of(network, storage, device)
    assert isinstance(weights, RegionWeights), weights
    cells = -(-size[0] // network.config.patch_size) * -(-size[1] // network.config.patch_size)
    return OwnPlanner(weights, storage, device, captured).plan(*size, cells)


def photograph(seed=1) -> torch.Tensor:
    return torch.from_numpy(image_of(HEIGHT, WIDTH, seed))


def inside(plan, cells) -> torch.Tensor:
    """bool (sH, sW): the pixels of a picture that are in chosen cells."""
    side = plan.config.patch_size * plan.config.scale
    large = cells.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return large[: plan.height * plan.config.scale, : plan.width * plan.config.scale]


def listed(numbers) -> tuple[list[int], list[int]]:
    """What is computed and what becomes zeros, of a list and its length; the host looks at it here."""
    entries = numbers.tiles[: int(numbers.length)].tolist()
    return [entry for entry in entries if entry >= 0], [-2 - entry for entry in entries if entry < -1]


@pytest.mark.parametrize("name", REFINING)
@pytest.mark.parametrize("halo", [4, 16, 64])
def test_lists_in_tiles_of_the_cpu_are_those_of_the_cpu(name, halo, monkeypatch, generator):
    """Of all layers, in squares of 4 pixels; the way to them has nothing in common but how far layers look."""
    monkeypatch.setattr(pixel_regions, "TILE", (4, 4))
    monkeypatch.setattr(pixel_regions, "tiles_of", lambda height, width: (-(-height // 4), -(-width // 4)))
    network = network_of(name, halo=halo)
    ours = plan_of(network).inner.regions
    theirs = RegionWeights.of(network, Maps()).plan(HEIGHT, WIDTH, 0).regions
    emptied = 0
    for share in (0.0, 0.05, 0.4, 1.0):
        cells = torch.rand(5, 9, generator=generator) < share
        for regions in (ours, theirs):
            regions.choose(cells, HEIGHT, WIDTH)
        found = [[listed(ours.lists[around]) for around in layers] for layers in ours.around]
        wanted = [
            [tuple(numbers.tolist() for numbers in theirs._lists(extent)) for extent in layers]
            for layers in theirs.extents
        ]
        assert found == wanted
        emptied += sum(len(zeros) for layers in wanted for _, zeros in layers)
    assert emptied


@pytest.mark.parametrize("side", [4, 12, 24])
def test_a_tile_is_listed_by_the_distance_of_tiles_in_which_cells_lie(side, generator):
    """Of cells that are not whole tiles, one by one; numbers go from row to row."""
    image, cells = (50, 75), torch.rand(-(-50 // side), -(-75 // side), generator=generator) < 0.1
    cells[1, 1] = True
    around = Around(1, (1, 0), (2, 2))
    down, across = tiles_of(*image)
    touched = {(y * side + dy) // TILE[0] * across + (x * side + dx) // TILE[1]
               for y, x in cells.nonzero().tolist() for dy in range(side) for dx in range(side)
               if y * side + dy < image[0] and x * side + dx < image[1]}  # fmt: skip

    def within(tile, rows, columns):
        apart = ((abs(tile // across - each // across), abs(tile % across - each % across)) for each in touched)
        return any(y <= rows and x <= columns for y, x in apart)

    (found,) = Boxes.of([around], side, image, cells).lists(cells)
    computed = [tile for tile in range(down * across) if within(tile, *around.tiles)]
    zeros = [tile for tile in range(down * across) if within(tile, *around.zeros) and tile not in computed]
    assert touched
    assert listed(found) == (computed, zeros)
    entries = found.tiles[: len(computed) + len(zeros)]
    assert torch.equal(torch.where(entries < 0, -2 - entries, entries), entries.new_tensor(sorted(computed + zeros)))


@pytest.mark.parametrize("name", REFINING)
@pytest.mark.parametrize(("halo", "patch_size"), [(0, 8), (16, 12)])
def test_all_cells_are_the_whole_network(name, halo, patch_size):
    plan = plan_of(network_of(name, halo=halo, patch_size=patch_size))
    found = plan.run(photograph())
    assert plan.chosen() == plan.capacity
    assert torch.equal(found, plan.dense(photograph()))


@pytest.mark.parametrize("name", REFINING)
def test_with_a_halo_of_all_it_sees_cells_are_the_whole_networks_and_others_the_base_nets(name):
    network = network_of(name)
    plan, image = plan_of(network), photograph()
    whole, coarse = plan.dense(image), plan.run(image, 0)
    plan.start()
    found = plan.run(image, 9)
    plan.start()
    plan.coarse(image, plan.buffer())
    plan.shown = coarse
    cells = inside(plan, plan.grid_of(plan.select(9)[1]))
    assert torch.equal(found[cells], whole[cells])
    assert torch.equal(found[~cells], coarse[~cells])
    assert not torch.equal(coarse[cells], whole[cells])
    expected = network(image.permute(2, 0, 1)[None] / 255, 9)[0].permute(1, 2, 0)
    assert float((found - 255 * expected).abs().max()) <= 0.52


def test_what_lies_around_regions_leaves_no_trace_however_small_the_halo_is():
    """Whatever the maps held: zeros are where nothing is computed, as far as anything looks, which is farther here."""
    torch.manual_seed(4)
    base, deep = (WholeConfig("compact", 4, blocks, {"channels": 16}) for blocks in (1, 14))
    network = RegionNetwork(RegionConfig(base, deep, halo=4)).eval().requires_grad_(False)
    plan, image = plan_of(network), photograph()
    wanted = plan.run(image, 7)
    for held in plan.inner.whole.area.rooms.maps.values():
        held.fill_(torch.nan)
    assert torch.equal(plan.run(image, 7), wanted)
    assert bool(plan.finite)


def test_cells_below_a_threshold_are_none_of_the_list():
    """On a GPU they are indices of -1, since their number is not known without waiting."""
    plan, image = plan_of(network_of("compact"), torch.float16), photograph()
    assert plan.grid_of(torch.tensor([[3, -1, 7, -1]])).flatten().nonzero().flatten().tolist() == [3, 7]
    wanted, pictures = plan.run(image, 11), [plan.buffer() for _ in range(2)]
    for picture in pictures:
        plan.show(image, picture)
        mask, indices = plan.choose(plan.capacity)
        plan.threshold = float(mask.flatten().sort(descending=True).values[10:12].mean())
        values = mask.flatten()[indices.long()]
        some = indices.masked_fill(values <= plan.threshold, -1) if picture is pictures[0] else plan.choose(45)[1]
        plan.refine(some, picture)
        assert torch.equal(plan.crop(picture), wanted)
    assert torch.equal(plan.run(image), wanted)
    assert plan.chosen() == 11
    plan.threshold = float(mask.max()) + 1
    assert torch.equal(plan.run(image), plan.run(image, 0))


def test_values_that_are_not_finite_are_told_of_what_is_refined_alone():
    network, image = network_of("compact"), photograph()
    network.refine.body.body[0].weight *= 1e6
    network.refine.body.body[2].weight *= 1e6
    plan = plan_of(network, torch.float16)
    plan.run(image, 0)
    assert bool(plan.finite)
    plan.start()
    plan.run(image, 5)
    assert not bool(plan.finite)


@pytest.mark.parametrize("name", REFINING)
def test_nothing_on_the_road_reads_a_value_back_whatever_is_chosen(name, gpu_floors):
    """Tensors without values have none; and what depends on values has the size of all that there could be."""
    plan = plan_of(network_of(name), torch.float16, META)
    for threshold, (dense, k) in itertools.product((None, 0.1), ((False, 45), (False, 1), (True, 0))):
        plan.threshold = threshold
        with torch.no_grad(), gpu_floors.one_launch_each():
            plan._run_all(dense, k)  # what is made once is made here
            with CaptureGuard() as guard, gpu_floors.Counter() as counter:
                plan._run_all(dense, k)
        assert "convolve_pixels_" in guard.seen
        names = [each.name for each in counter.launches]
        lists = names.count("scatter_")
        assert lists == (0 if dense else {"msrresnet": 3}.get(name, 1)), "one for all layers over maps of a scale"
        made = names.count("convolve_pixels_")
        networks = [plan.inner.whole] if dense else [plan.inner.base, plan.inner.whole]
        assert made == sum(len(chain.stages) for part in networks for chain in part.weights.chains)


def test_what_was_made_for_an_image_is_let_go():
    """In a graph's memory, which the next replay uses anew."""
    plan = plan_of(network_of("compact"))
    plan.run(photograph(), 5)
    plan._forget()
    assert not plan.inner.regions.lists
    assert not plan.inner.regions.cells.numel()
    assert not plan.inner.image.numel()


@pytest.mark.parametrize("name", REFINING)
def test_modules_of_such_networks_run_in_a_graph_too(name, fake_graphs):
    """The plan that ours is measured against: the definition, replayed for a second image."""
    network = network_of(name)
    plan = capturing(CudaGraphPlanner(network, CPU, torch.float32), CPU).plan(HEIGHT, WIDTH, 12)
    for seed in (1, 2):
        image = photograph(seed)
        wanted = network(image.permute(2, 0, 1)[None] / 255, 12)[0].clamp(0, 1).permute(1, 2, 0)
        assert_nearly(plan.run(image), (255 * wanted).round().byte())
    assert FakeGraph.captures > 0
    assert "uncaptured" not in plan.planner.description


@pytest.mark.parametrize("kind", ["own", "modules"])
def test_of_images_in_tiles_the_cells_are_given_on_the_cpu(kind, gpu_floors):
    """Another device than that of the picture; one without values stands for it."""
    network = network_of("compact")
    plan = plan_of(network, torch.float16, META) if kind == "own" else None
    plan = plan or CudaGraphPlanner(network, META).plan(HEIGHT, WIDTH, 9)
    with gpu_floors.one_launch_each(), torch.no_grad():
        tile = plan.buffer()
        plan.show(photograph(), tile)
        plan.refine(torch.tensor([[1, 7]], dtype=torch.int32), tile)
    assert tile.device == META


def test_on_a_gpu_they_are_what_is_chosen_from(monkeypatch):
    from mga_kernels.runtimes.cuda import choice

    seen = []
    monkeypatch.setattr(choice, "fastest", lambda network, device, dtype: seen.append(network) or "none")
    network = network_of("span")
    monkeypatch.setattr(type(network), "to", lambda self, *given, **named: self)
    prepare(network, torch.device("cuda"), None)
    assert seen == [network]


def test_what_cannot_refine_regions_says_why():
    base = WholeConfig("compact", 4, 1, {"channels": 16})
    network = RegionNetwork(RegionConfig(base, WholeConfig("fsrcnn", 4, 1))).eval()
    assert "fsrcnn has steps between its convolutions" in OwnPlanner.of(network, CPU)
    assert "float32 was asked for" in OwnPlanner.of(network_of("compact"), CPU, torch.float32)


def test_memory_is_counted_before_it_is_taken():
    plan = plan_of(network_of("span"), torch.float16)
    plan.run(photograph())
    tensors = {id(tensor): tensor for part in (plan.inner.base, plan.inner.whole) for tensor in part.tensors}
    rooms = [room for part in (plan.inner.base, plan.inner.whole) for room in part.area.rooms.maps.values()]
    held = [*tensors.values(), *rooms, *(tensor for slot in plan._slots for tensor in (slot.image, slot.picture))]
    counted = plan.planner.bytes_needed(HEIGHT, WIDTH, plan.capacity)
    assert 0.8 * counted < sum(tensor.nbytes for tensor in held) <= counted


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", REFINING)
def test_on_a_gpu_one_graph_serves_every_mask(name, dtype):
    """Two images in flight, then more: other cells are refined each time, and cells are those of the whole network."""
    network = network_of(name, patch_size=12)
    plan = OwnPlanner.of(network, torch.device("cuda"), dtype).plan(HEIGHT, WIDTH, 8)
    images = [photograph(seed) for seed in range(4)]
    begun = [plan.begin(image) for image in images[:2]]
    found = [plan.finish(one) for one in begun] + [plan.run(image) for image in images[2:]]
    assert len(plan._replays) == 2
    for image, picture in zip(images, found, strict=True):
        whole, coarse = plan.dense(image).int(), plan.run(image, 0).int()
        plan.shown = coarse.byte().cuda()
        cells = inside(plan, plan.grid_of(plan.select(8)[1]).cpu())
        apart = (picture.int() - torch.where(cells[..., None], whole, coarse)).abs().float()
        assert float(apart.mean()) < 0.01, "the same kernels, over lists"
        assert bool(plan.finite)
    assert plan.planner.description.endswith("in regions, in a CUDA graph")


def test_the_committed_table_has_these_plans():
    rows = json.loads((ROOT / "bench/results/gpu_floors.json").read_text())["rows"]
    roads = {(row["network"], row["road"]) for row in rows}
    for name in REFINING:
        assert (name, "regions of 30%, own convolutions") in roads
