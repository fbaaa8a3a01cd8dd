"""Networks of two whole ones, of which the large one refines connected regions: the same as the whole image's."""

import numpy as np
import pytest
import torch
from film_networks import SHAPES, image_of

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.checkpoints.native import load_native, save_model
from mga_kernels.errors import InputError
from mga_kernels.export import export_model
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.networks.detail import detail, evened
from mga_kernels.ops import high_pass, select_patches
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.region_plan import RegionWeights

BASE = WholeConfig("compact", 4, 1, {"channels": 16})
REFINING = {name.removesuffix(" x4"): shape for name, shape in SHAPES.items() if name != "rrdbnet x2"}


def network_of(name, halo=64, **settings):
    torch.manual_seed(4)
    refine = REFINING[name]
    base = WholeConfig("compact", refine.scale, 1, {"channels": 16})
    network = RegionNetwork(RegionConfig(base, refine, halo=halo, **settings)).eval().requires_grad_(False)
    for parameter in network.parameters():  # what random networks make is hardly seen in bytes
        if parameter.ndim == 4:
            parameter.mul_(1.2)
    return network


def of_cells(model, cells, shape):
    """The pixels of cells in a result."""
    side = model.patch_size * model.scale
    return cells.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("name", REFINING)
def test_with_a_halo_of_all_it_sees_cells_are_those_of_the_whole_network(name):
    model = MaskGuidedSR(network_of(name), runtime="own", fraction=0.3)
    image = image_of()
    found = model.explain(image)
    whole = np.asarray(MaskGuidedSR(network_of(name), runtime="own", mode="dense").upscale(image))
    cells = np.zeros(found.mask.size, bool)
    cells[found.indices] = True
    assert len(found.indices) == round(0.3 * found.mask.size)
    chosen = of_cells(model, cells.reshape(found.mask.shape), whole.shape)
    difference = np.abs(np.asarray(found.image).astype(int) - whole)
    assert difference[chosen].max() <= 1
    assert (difference[chosen] > 0).mean() < 1e-3
    assert np.array_equal(np.asarray(found.image)[~chosen], np.asarray(found.coarse)[~chosen])
    assert np.abs(np.asarray(found.coarse).astype(int) - whole)[chosen].max() > 1


@pytest.mark.parametrize("name", REFINING)
@pytest.mark.parametrize("patch_size", [8, 12])
def test_all_cells_are_the_whole_network(name, patch_size):
    image = image_of()
    every, whole = (
        np.asarray(MaskGuidedSR(network_of(name, halo=0, patch_size=patch_size), runtime="own", **how).upscale(image))
        for how in ({"fraction": 1.0}, {"mode": "dense"})
    )
    assert np.array_equal(every, whole)


@pytest.mark.parametrize("name", REFINING)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_cells_of_12_are_in_the_tiles_of_the_network_alone(name, dtype):
    """Which are those of 6 where they make it faster: where every cell is refined it is its picture, bit by bit."""
    network, image = network_of(name, patch_size=12), image_of()
    planner = RegionWeights.of(network, Maps(), exact=dtype != "auto")
    sides = {side for call in planner.plan(83, 150, 0).regions.calls for side in call[0].sides}
    assert sides == {4, 6} or name != "compact"
    alone = WholeNetwork(network.config.refine)
    alone.load_state_dict(network.refine.state_dict())
    whole = np.asarray(MaskGuidedSR(alone, runtime="own", dtype=dtype).upscale(image))
    every = np.asarray(MaskGuidedSR(network, runtime="own", dtype=dtype, fraction=1.0).upscale(image))
    assert np.array_equal(every, whole)


@pytest.mark.parametrize("name", ["compact", "msrresnet"])
# Of the bytes of two pictures, each half a level off at most, the mean is rounded once more.
@pytest.mark.parametrize(("mean", "most"), [(False, 0.52), (True, 1.02)])
def test_the_plan_is_the_definition(name, mean, most):
    image, network = image_of(), network_of(name, mean=mean)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = network(tensor, k=60)[0].permute(1, 2, 0)
    for runtime in ("own", "pytorch"):
        model = MaskGuidedSR(network, runtime=runtime, dtype="float32", k=60)
        found = torch.from_numpy(np.asarray(model.upscale(image)))
        assert (found - 255 * expected).abs().max() <= most, runtime


@pytest.mark.parametrize("halo", [4, 8])
def test_with_a_small_halo_cells_are_nearly_those_of_the_whole_network(halo):
    """Also where layers of tiles of 4 and of 6 follow one another: none ends nearer to the cells than one behind it."""
    refine = load_checkpoint("span-x4")
    network = RegionNetwork(RegionConfig(BASE, refine.config, 12, halo)).eval().requires_grad_(False)
    network.refine.load_state_dict(refine.state_dict())
    image = image_of()
    found = MaskGuidedSR(network, runtime="own", fraction=0.3).explain(image)
    whole = np.asarray(MaskGuidedSR(refine, runtime="own").upscale(image)).astype(float)
    cells = np.isin(np.arange(found.mask.size), found.indices).reshape(found.mask.shape)
    inside = cells.repeat(48, 0).repeat(48, 1)[: whole.shape[0], : whole.shape[1]]
    assert np.square(np.asarray(found.image) - whole)[inside].mean() < 0.5  # levels of 255


def test_what_lies_around_regions_leaves_no_trace():
    """Whatever the maps held before, and however small the halo is."""
    model = MaskGuidedSR(network_of("compact", halo=4), runtime="own", fraction=0.2)
    first = np.asarray(model.upscale(image_of()))
    model.upscale(np.full((83, 150, 3), 255, np.uint8))
    model.upscale(np.asarray(image_of())[::-1].copy())
    assert np.array_equal(np.asarray(model.upscale(image_of())), first)


def test_networks_share_a_map_of_the_image_and_refine_the_last_one():
    weights, indices = RegionWeights.of(network_of("compact"), Maps()), torch.arange(40, 90, dtype=torch.int32)[None]
    images = [torch.from_numpy(image) for image in (image_of(), image_of()[::-1].copy())]
    plan = weights.plan(*images[0].shape[:2], 90)
    assert plan.whole.image is plan.base.image
    found = []
    for image, coarse in ((images[1], True), (images[0], True), (images[1], False), (images[1], True)):
        out = plan.buffer().zero_()
        plan.coarse(image, out if coarse else None)
        out.zero_()
        plan.refine(indices, out)
        found.append(out)
    assert found[0].any()
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])


@pytest.mark.parametrize(
    ("mean", "how"), [(False, {"fraction": 0.25}), (True, {"fraction": 0.25}), (True, {"mode": "dense"})]
)
def test_threads_and_tiles_change_nothing(mean, how):
    image, results = image_of(150, 260), []
    threads = torch.get_num_threads()
    try:
        for number, tile in ((1, None), (3, None), (2, 64)):
            torch.set_num_threads(number)
            model = MaskGuidedSR(network_of("compact", halo=8, mean=mean), runtime="own", tile=tile, **how)
            results.append(np.asarray(model.upscale(image)))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_file_holds_it_whole(tmp_path):
    network = network_of("span", halo=12, quality="high", qualities={"high": 0.02, "fast": 0.05})
    save_model(tmp_path / "it.safetensors", network, {}, {})
    again = load_native(tmp_path / "it.safetensors")
    assert again.config == network.config
    image = image_of()
    assert np.array_equal(MaskGuidedSR(network).upscale(image), MaskGuidedSR(again).upscale(image))


def test_the_usual_amount_is_the_quality_or_the_share():
    image = image_of()
    coarse = MaskGuidedSR(network_of("compact"), k=0).upscale(image)
    picture = torch.from_numpy(np.asarray(coarse).copy())[None]
    mask = detail(picture, 8 * network_of("compact").config.scale, True)
    middle = float(mask.median())
    by_quality = MaskGuidedSR(network_of("compact", quality="high", qualities={"high": middle}))
    assert len(by_quality.explain(image).indices) == int((mask > middle).sum())
    assert len(MaskGuidedSR(network_of("compact", share=0.5)).explain(image).indices) == round(0.5 * mask.numel())
    assert len(MaskGuidedSR(network_of("compact", share=0.5), k=7).explain(image).indices) == 7


def test_cells_beside_others_come_before_cells_alone():
    """By as much detail, since their halo is shared; where all have the same nothing changes."""
    mask = torch.zeros(1, 5, 7)
    mask[0, 1, 1] = mask[0, 3, 4] = mask[0, 3, 5] = mask[0, 2, 5] = 1.0
    values = evened(mask)[0]
    assert values[3, 5] > values[1, 1]
    assert values[1, 1] == pytest.approx((0.5 + 0.5 / 9) ** 0.5)
    assert values[0, 0] == pytest.approx((0.5 / 9) ** 0.5)
    assert torch.allclose(evened(torch.full((2, 3, 4), 0.3)), torch.tensor(0.3))


@pytest.mark.parametrize("tile", [None, 32])
def test_cells_are_chosen_by_the_evened_detail_of_the_coarse_picture(tile):
    network, image = network_of("compact"), image_of()
    coarse = np.asarray(MaskGuidedSR(network, k=0).upscale(image)).copy()
    side = 8 * network.config.scale
    mask = evened(high_pass(torch.from_numpy(coarse)[None], side))
    found = MaskGuidedSR(network, k=5, tile=tile, runtime="own").explain(image)
    assert np.array_equal(found.indices, select_patches(mask, 5)[0].numpy())
    assert np.array_equal(found.mask, mask[0].numpy())


def test_a_flat_image_needs_no_refinement():
    network = network_of("compact", quality="high", qualities={"high": 0.001})
    for parameter in network.base.body.body[-1].parameters():
        parameter.zero_()
    model = MaskGuidedSR(network, runtime="own")
    assert len(model.explain(np.full((40, 40, 3), 90, np.uint8)).indices) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"halo": 6}, "multiple of 4"),
        ({"patch_size": 6}, "patch_size"),
        ({"share": 1.5}, "share"),
        ({"quality": "best"}, "quality"),
        ({"refine": WholeConfig("rcan", 4, 10)}, "looks at the whole image"),
        ({"refine": WholeConfig("compact", 2, 1)}, "x4 and x2"),
    ],
)
def test_what_cannot_be_is_an_error(settings, message):
    with pytest.raises(InputError, match=message):
        RegionNetwork(RegionConfig(**{"base": BASE, "refine": REFINING["compact"], **settings}))


def test_a_quality_is_a_threshold_of_the_model_and_whole_is_dense():
    network = network_of("compact", quality="high", qualities={"high": 0.01, "fast": 0.03})
    assert MaskGuidedSR(network, quality="fast").amount.threshold == 0.03
    assert MaskGuidedSR(network, quality="whole").settings.mode == "dense"
    for settings, message in (
        ({"quality": "best"}, "choose one of whole, high, fast"),
        ({"quality": "fast", "fraction": 0.1}, "leave out fraction"),
        ({"quality": "whole", "k": 3}, "leave out K"),
        ({"quality": "fast", "mask": "learned"}, "no learned mask"),
    ):
        with pytest.raises(InputError, match=message):
            MaskGuidedSR(network, **settings)


def test_more_than_8_bits_are_refined_by_definition():
    model, image = MaskGuidedSR(network_of("compact"), fraction=0.3, dtype="float32"), image_of()
    deep = image.astype(np.uint16) * 257
    found, expected = np.asarray(model.upscale(deep)), np.asarray(model.upscale(image))
    assert np.abs(found / 257 - expected).max() <= 1.01


def test_no_graph_is_exported(tmp_path):
    with pytest.raises(InputError, match="refines regions"):
        export_model(network_of("compact"), tmp_path / "it.pt2")
