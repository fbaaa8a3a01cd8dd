"""Images in tiles against the same images run whole, and what a memory budget leads to."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from network_zoo import ROOT, random_model, rfdn_of_trained_base
from PIL import Image
from torch import Tensor

from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.errors import InputError, OutOfMemoryError
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.layers import Place, resampling
from mga_kernels.runtimes.pytorch.modules import ModulePlanner
from mga_kernels.runtimes.tiles import budget
from mga_kernels.runtimes.tiles.budget import tiled
from mga_kernels.runtimes.tiles.patches import Best, select_patches
from mga_kernels.runtimes.tiles.tiled import TiledPlan
from mga_kernels.runtimes.tiles.tiling import Overlap, Tiling, tilings
from mga_kernels.system import memory

NO_NORM = {"base": {"norm": "none"}, "refine": {"norm": "none"}}
LIGHT = {"base": {"light": True}}
NARROW = {"base": {"light": True, "channels": 24}, "refine": {"channels": 24}}
LOCAL = {"fsrcnn": {}, "pan": {}, "srresnet": NO_NORM, "rfdn": {}, "pan-split": LIGHT, "msrresnet-split": LIGHT}


def photograph(height: int, width: int) -> Tensor:
    photo = np.asarray(Image.open(ROOT / "python/mga/assets/demo.png").convert("RGB"))
    return torch.from_numpy(photo[130 : 130 + height, 200 : 200 + width].copy())


def few_tiles(network: MaskGuidedNetwork, height: int, width: int) -> Tiling:
    """Not all of them at the border of the image, where it is long enough."""
    overlap = Overlap.of(network)
    assert overlap is not None
    ways = tilings(overlap, height, width)
    cut = [tiling for tiling in ways if min(len(tiling.rows), len(tiling.columns)) > 1] or ways
    inner = [tiling for tiling in cut if max(len(tiling.rows), len(tiling.columns)) > 2]
    return min(inner or cut, key=len)


@pytest.fixture(autouse=True)
def _one_thread():
    """These many small calls would mostly wait for a second one where the processor has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.inference_mode()
def explained(plan: runtimes.Plan, image: Tensor, k: int) -> dict[str, Tensor]:
    """Coarse and final picture, mask, indices; pictures are poisoned before."""
    picture = plan.buffer().fill_(0xA5)
    plan.coarse(image, picture)
    coarse = plan.crop(picture).clone()
    mask, indices = plan.select(k)
    plan.refine(indices, picture)
    return {"coarse": coarse, "final": plan.crop(picture), "mask": mask, "indices": indices}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert expected["coarse"].float().std() > 10, "a flat picture proves nothing"
    assert torch.equal(found["indices"], expected["indices"])
    torch.testing.assert_close(found["mask"], expected["mask"].float(), atol=1e-6, rtol=0)
    for name in ("coarse", "final"):
        difference = (found[name].int() - expected[name].int()).abs()
        assert difference.max() <= 1, name
        assert (difference > 0).float().mean() < 1e-3, name


@pytest.mark.parametrize(
    ("name", "scale", "p", "height", "width", "k"),
    [
        ("fsrcnn", 2, 2, 63, 90, 40),
        ("fsrcnn", 4, 4, 95, 66, 30),
        ("fsrcnn", 3, 8, 121, 134, 7),
        ("fsrcnn", 4, 4, 95, 66, 17 * 24),
        ("pan", 4, 4, 70, 83, 25),
        ("pan", 3, 2, 70, 61, 25),
        ("srresnet", 2, 4, 81, 70, 20),
        ("rfdn", 2, 4, 185, 182, 30),
    ],
)
def test_tiles_equal_the_whole(name, scale, p, height, width, k):
    network = random_model(name, scale, patch_size=p, **LOCAL[name])
    planner, image = ModulePlanner(network), photograph(height, width)
    tiling = few_tiles(network, height, width)
    plan = tiled(planner, network, height, width, k, tiling)
    expected = explained(planner.plan(height, width, k), image, k)
    for _ in range(2):  # the second time with what the first one left behind
        assert_equal(explained(plan, image, k), expected)
    assert torch.equal(plan.run(image), explained(plan, image, k)["final"])


@pytest.mark.parametrize("selection", ["smallest", "random"])
def test_other_selections(selection):
    network = random_model("fsrcnn", 2, selection=selection)
    planner, image = ModulePlanner(network), photograph(90, 70)
    plan = tiled(planner, network, 90, 70, 20, few_tiles(network, 90, 70))
    assert_equal(explained(plan, image, 20), explained(planner.plan(90, 70, 20), image, 20))


def test_no_cells_and_fewer_than_there_is_room_for():
    network = random_model("fsrcnn", 2)
    planner, image = ModulePlanner(network), photograph(90, 70)
    tiling = few_tiles(network, 90, 70)
    plan = tiled(planner, network, 90, 70, 20, tiling)
    assert_equal(explained(plan, image, 7), explained(planner.plan(90, 70, 7), image, 7))
    base = planner.plan(90, 70, 0).run(image)
    assert torch.equal(plan.run(image, k=0), base)
    assert torch.equal(tiled(planner, network, 90, 70, 0, tiling).run(image), base)
    with pytest.raises(InputError, match="only the 20 cells with the best mask values are kept"):
        plan.gather(torch.tensor([sorted(set(range(400)) - set(plan.best.cells.tolist()))[:3]], dtype=torch.int32))


def test_equal_mask_values_go_to_the_lower_index_of_the_image():
    """A grey image has few different mask values, so ties decide."""
    network = random_model("fsrcnn", 2)
    planner, image = ModulePlanner(network), torch.full((90, 130, 3), 90, dtype=torch.uint8)
    whole = planner.plan(90, 130, 150)
    expected = explained(whole, image, 150)
    assert len(expected["mask"].unique()) < 100
    plan = tiled(planner, network, 90, 130, 150, few_tiles(network, 90, 130))
    found = explained(plan, image, 150)
    assert torch.equal(found["indices"], expected["indices"])
    assert torch.equal(found["final"], expected["final"])


def test_best_is_select_patches_in_any_order_of_arrival():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 6, (200,), generator=generator).float()
    values[::17] = float("nan")
    for order in ("largest", "smallest"):
        best, patches = Best(30, order), torch.full((30,), -1)
        for some in torch.randperm(200, generator=generator).split(23):
            cells = some.sort().values
            entering, slots = best.offer(values[cells], cells)
            patches[slots] = cells[entering]
        expected = select_patches(values[None, None], 30, order)[0].long()
        assert torch.equal(best.cells, expected)
        assert torch.equal(patches[best.find(expected)], expected)


def test_tiles_cover_the_image_once_with_enough_around_them():
    for overlap in (Overlap(14, 4, 4, 1), Overlap(85, 12, 4, 15), Overlap(20, 24, 8, 15), Overlap(9, 2, 2, 1)):
        for length in (1, 30, 255, 256, 401, 1080, 1919):
            for side, cuts in overlap.sides(length).items():
                assert [cut.first for cut in cuts] == [0, *(cut.last for cut in cuts[:-1])]
                assert cuts[-1].last == length
                for cut in cuts:
                    assert cut.first < cut.last
                    assert cut.start % overlap.multiple == 0
                    assert cut.first % overlap.cell == 0
                    assert cut.start == 0 or cut.first - cut.start >= overlap.width
                    assert cut.start + side == length or cut.start + side - cut.last >= overlap.width
                    assert 0 <= cut.start <= length - side


@pytest.mark.parametrize("name", [*LOCAL, "rfdn without pool", "pan-split copied", "msrresnet-split copied"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_receptive_fields_are_true_and_not_too_large(name, scale):
    """One pixel changed: no column changes beyond the receptive field, and one does near its border."""
    name, _, other = name.partition(" ")
    settings = {"without pool": {"base": {"pool": False}}, "copied": {"base": {}}}.get(other, {})
    network = random_model(name, scale, **(LOCAL[name] | settings)).double()
    reach, side = network.base.receptive_field, 2 * network.base.receptive_field + 31
    middle = side // 2 // 6 * 6
    image = torch.rand(1, 3, 31, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differing = image.clone()
    differing[..., 15, middle] = 1 - differing[..., 15, middle].round()
    changed = torch.zeros(side, dtype=torch.bool)
    value_range = network.value_range
    for result, again in zip(network.base(image * value_range), network.base(differing * value_range), strict=True):
        size = result.shape[-1] // side
        changed |= (result != again).any(dim=2).flatten(0, 1).any(dim=0).unflatten(0, (side, size)).any(dim=1)
    seen = (changed.nonzero()[:, 0] - middle).abs().max()
    # What the attention of RFDN resamples depends on where in the image it is, and its maximum is of some pixels only.
    assert reach - (14 if name == "rfdn" else 1) <= seen <= reach


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name in ("fsrcnn", "pan") for scale in (2, 3, 4)] + [("srresnet", 2)]
)
def test_dense_in_tiles(name, scale):
    network = random_model(name, scale, **LOCAL[name])
    planner, image = ModulePlanner(network), photograph(70, 91)
    found = tiled(planner, network, 70, 91, 5, few_tiles(network, 70, 91)).dense(image)
    difference = (found.int() - planner.plan(70, 91, 5).dense(image).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_dense_is_refused_where_it_is_not_local():
    network = random_model("rfdn", 2)
    plan = tiled(ModulePlanner(network), network, 185, 182, 5, few_tiles(network, 185, 182))
    with pytest.raises(InputError, match=r"-D of rfdn looks at the whole image.*run -M"):
        plan.dense(photograph(185, 182))


def test_enlarging_a_part_is_a_part_of_the_enlargement():
    whole = torch.rand(3, 37, 29, dtype=torch.float64).float()
    expected = torch.nn.functional.interpolate(whole[None], size=(240, 190), mode="bilinear")[0]
    rows, columns = resampling(60, 90, 240, 20, 10, 37), resampling(190, 0, 190, 29, 0, 29)
    found = rows @ whole[:, 10:30] @ columns.T
    torch.testing.assert_close(found, expected[:, 90:150], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pool", [True, False])
def test_attention_of_a_tile_that_is_the_whole_image(pool):
    network = random_model("rfdn", 2, base={"pool": pool})
    image = photograph(61, 47).permute(2, 0, 1)[None].float()
    for found, expected in zip(network.base(image, Place(0, 0, 61, 47)), network.base(image), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=0)


@pytest.mark.parametrize(
    ("dtype", "runtime", "height", "width"),
    [(torch.float32, "pytorch", 387, 60), (torch.float32, "own", 387, 60), (torch.bfloat16, "own", 300, 44)],
)
def test_published_rfdn(dtype, runtime, height, width):
    """Four blocks, of whose common reach only a part is overlap. In bf16 a tile is rounded differently at its seams."""
    network = rfdn_of_trained_base()
    planner, _ = runtimes.prepare(network, torch.device("cpu"), dtype, runtime)
    image = photograph(height, width)
    plan = tiled(planner, network, height, width, 60, few_tiles(network, height, width))
    assert len(plan.tiling) > 1
    found, expected = explained(plan, image, 60), explained(planner.plan(height, width, 60), image, 60)
    difference = (found["final"].float() - expected["final"].float()).abs()
    common = set(found["indices"][0].tolist()) & set(expected["indices"][0].tolist())
    if dtype == torch.float32:
        assert difference.max() <= 1
        assert difference.mean() < 1e-4
        assert len(common) == 60
    else:
        assert difference.max() <= 4
        assert difference.mean() < 0.1
        assert len(common) >= 57


@pytest.mark.parametrize(
    ("name", "scale", "height", "width"),
    [
        ("fsrcnn", 4, 65, 57),
        ("pan", 4, 80, 60),
        ("srresnet", 2, 85, 72),
        ("pan-split", 4, 65, 57),
        ("msrresnet-split", 4, 60, 54),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_in_our_convolutions(name, scale, height, width, dtype):
    """Every pixel is computed from the same bf16 values in a tile and in the whole; in float32 the tiles of 3x3 kernels
    lie differently."""
    network = random_model(name, scale, **(NARROW if name == "msrresnet-split" else LOCAL[name]))
    planner, _ = runtimes.prepare(network, torch.device("cpu"), dtype, "own")
    image, tiling = photograph(height, width), few_tiles(network, height, width)
    assert len(tiling) > 3
    plan, whole = tiled(planner, network, height, width, 40, tiling), planner.plan(height, width, 40)
    expected = explained(whole, image, 40)
    for _ in range(2):
        assert_equal(explained(plan, image, 40), expected)
    difference = (plan.dense(image).int() - whole.dense(image).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("runtime", ["pytorch", "own"])
def test_dense_has_a_budget_of_its_own(runtime):
    image = photograph(120, 130).numpy()
    free = MaskGuidedSR(random_model("pan", 4), mode="dense", device="cpu", runtime=runtime)
    expected = free.upscale(image)
    whole = free._runner.held()
    tight = MaskGuidedSR(random_model("pan", 4), mode="dense", device="cpu", runtime=runtime, memory=int(0.8 * whole))
    assert np.abs(tight.upscale(image).astype(int) - expected).max() <= 1
    assert "dense" in tight.info()["prepared"][0]
    assert "tiles of" in tight.info()["prepared"][0]
    rfdn = MaskGuidedSR(random_model("rfdn", 4), mode="dense", device="cpu", runtime=runtime, memory="1MB")
    with pytest.raises(OutOfMemoryError, match=r"-D of rfdn looks at the whole image.*run -M, a larger memory="):
        rfdn.upscale(image)


def model_within(limit: int | str | None, name: str = "fsrcnn", k: int = 25, **settings) -> MaskGuidedSR:
    choices = {"device": "cpu", "dtype": "float32", "runtime": "pytorch"}
    return MaskGuidedSR(random_model(name, 4, **settings), k=k, memory=limit, **choices)


def test_a_budget_leads_to_tiles_with_the_result_of_the_whole_image():
    image = photograph(150, 131).numpy()
    free, tight = model_within(None), model_within("14MiB")
    expected, told = free.upscale(image), tight.explain(image)
    assert "tiles" not in free.info()["prepared"][0]
    assert "tiles of" in tight.info()["prepared"][0]
    assert np.abs(told.image.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(tight.upscale(image), told.image)
    np.testing.assert_array_equal(told.indices, free.explain(image).indices)
    out = np.zeros_like(expected)
    assert tight.upscale(image, out=out) is out
    np.testing.assert_array_equal(out, told.image)
    tight.upscale(photograph(20, 20).numpy())
    assert tight._runner.held() <= 14 << 20


def test_the_plan_that_is_chosen_stays_within_the_budget():
    made = budget.Budget(ModulePlanner(random_model("fsrcnn", 4)), random_model("fsrcnn", 4), torch.device("cpu"), 1)
    whole = made.untiled(400, 300, 50, False).bytes
    work = []
    for share in (1.0, 0.7, 0.5, 0.35):
        made.memory = int(share * whole)
        plan = made.plan(400, 300, 50, False, 0, "this")
        assert plan.bytes <= made.memory
        work.append(plan.tiling.pixels if isinstance(plan, TiledPlan) else 400 * 300)
    assert work == sorted(work)
    assert work[0] < work[1]
    assert made.room(held=100) == made.memory - 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "rcan"}, "rcan looks at the whole image, so it is not cut into tiles; .* a larger memory="),
        ({"name": "srresnet"}, "srresnet looks at the whole image"),
        ({}, r"in \d+ tiles of \d+x\d+, the smallest; use a smaller image, a smaller k, a larger memory="),
    ],
)
def test_what_cannot_fit_is_refused(settings, message):
    with pytest.raises(OutOfMemoryError, match=message):
        model_within("1MB", **settings).upscale(photograph(150, 131).numpy())


def test_memory_that_runs_out_leads_to_smaller_tiles(monkeypatch, caplog):
    """The allocator's own error above a size of the image or tile that is set here."""
    image, model = photograph(150, 131).numpy(), model_within(None)
    expected, largest, tried = model.upscale(image), 80 * 80, []
    model._runner.plans.clear()
    forward = model.model.base.forward

    def limited(x: Tensor) -> tuple[Tensor, Tensor]:
        tried.append(x.shape[2] * x.shape[3])
        return forward(x) if tried[-1] <= largest else torch.empty(1 << 60)

    monkeypatch.setattr(model.model.base, "forward", limited)
    with caplog.at_level(logging.WARNING, "mga_kernels"):
        found = model.upscale(image)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert tried[0] == 150 * 131
    assert tried[-1] <= largest
    assert "131x150 whole ran out of memory; trying smaller tiles" in caplog.text
    attempts = len(tried)
    model.upscale(image)
    assert tried[attempts] <= largest, "what was learnt is not forgotten"

    largest = 0
    model._runner.plans.clear()
    with pytest.raises(OutOfMemoryError, match="needs more memory than cpu has"):
        model.upscale(image)
    assert min(tried) < 50 * 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [(5, 5), ("700", 700), ("2GiB", 2 << 30), ("1.5 g", 3 << 29), ("500MB", 500_000_000), ("3kib", 3072), ("9b", 9)],
)
def test_amounts_of_memory(text, expected):
    assert memory.parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "0", 0, "2PiB", True, "1.2.3G", None])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match='such as "8GiB"'):
        memory.parse_memory(text)
