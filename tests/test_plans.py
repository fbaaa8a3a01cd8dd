"""Networks through their plans against the same in float32."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from network_zoo import SHORT_GROUPS
from PIL import Image

from mga.evaluation.metrics import psnr_y
from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.architectures.fsrcnn.cpu import FsrcnnWeights
from mga_kernels.architectures.imdn.cpu import ImdnWeights
from mga_kernels.architectures.msrresnet.cpu import MsrresnetWeights
from mga_kernels.architectures.pan.cpu import DividedPanWeights, PanWeights
from mga_kernels.architectures.rcan.cpu import RcanWeights
from mga_kernels.architectures.rfdn.cpu import RfdnWeights
from mga_kernels.architectures.srresnet.cpu import SrresnetWeights
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import choose, large_tiles
from mga_kernels.runtimes.cpu.plan import PairWeights
from mga_kernels.runtimes.pytorch.modules import ModulePlanner

ROOT = Path(__file__).resolve().parent.parent
OWN = "in convolutions of our own"
MAPS, PAIRS = (choose.STORAGES[name] for name in ("float32", "bfloat16"))


WEIGHTS = {
    "fsrcnn": FsrcnnWeights,
    "imdn": ImdnWeights,
    "msrresnet-split": MsrresnetWeights,
    "pan": PanWeights,
    "pan-split": DividedPanWeights,
    "rcan": RcanWeights,
    "rfdn": RfdnWeights,
    "srresnet": SrresnetWeights,
}


PLAIN = {"base": {"norm": "none"}, "refine": {"norm": "none"}}
LIGHT = {"base": {"light": True}}
NARROW = {"base": {"light": True, "channels": 36}, "refine": {"channels": 36}}


def small_network(scale: int = 4, patch_size: int = 4, name: str = "rfdn", **settings) -> MaskGuidedNetwork:
    """Random, but with an image near its middle, so that errors are not clamped away."""
    torch.manual_seed(0)
    settings = {"split": (2, 1), **settings}
    network = MaskGuidedNetwork(ModelConfig(name, scale, patch_size, **settings))
    with torch.no_grad():
        for half in (network.base, network.refine):
            if name == "rfdn":
                half.upsampler[0].weight.mul_(8)
                half.upsampler[0].bias.fill_(128)
            elif name in ("pan", "pan-split", "msrresnet-split"):
                last = half.conv_last if getattr(half, "light", None) is None else half.light
                last.weight.mul_({"pan": 30, "pan-split": 5, "msrresnet-split": 3}[name])
            elif name == "fsrcnn":
                half.last_part[2].weight.mul_(3)
                half.last_part[2].bias.fill_(0.5)
            elif name == "rcan":
                half.conv_last.weight.mul_(8)
            elif name == "imdn":
                half.upsampler[0].weight.mul_(12)
                half.upsampler[0].bias.fill_(0.5)
            elif half.conv_output.bias is None:
                half.conv_output.weight.mul_(3)
            else:
                half.conv_output.weight.mul_(12)
                half.conv_output.bias.fill_(0.5)
        for module in network.modules():
            if isinstance(module, torch.nn.InstanceNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        if name == "pan":
            network.refine.conv_last.bias.fill_(0.5)
        network.mask.conv2.weight.mul_({"rcan": 0.5, "srresnet": 4}.get(name, 20))
    return network.eval().requires_grad_(False)


def model_of(network: MaskGuidedNetwork | WholeNetwork, **settings) -> MaskGuidedSR:
    """Run by convolutions of our own, whether they are fast here or not."""
    return MaskGuidedSR(network, **{"device": "cpu", "runtime": "own"} | settings)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kept", choose.STORAGES)
@pytest.mark.parametrize(
    ("name", "height", "width", "scale", "patch_size", "settings"),
    [
        ("rfdn", 32, 48, 4, 4, {}),
        ("rfdn", 17, 50, 4, 4, {}),
        ("rfdn", 17, 15, 2, 8, {}),
        ("rfdn", 31, 21, 3, 2, {}),
        ("rfdn", 24, 40, 4, 4, {"mask": {"classes": 1}}),
        (
            "rfdn",
            *(24, 40, 4, 4),
            {"mask": {"order": "pool-then-softmax", "filter_source": "feature"}, "selection": "smallest"},
        ),
        ("pan", 32, 48, 4, 4, {}),
        ("pan", 17, 50, 4, 4, {"split": (3, 2)}),
        ("pan", 17, 15, 2, 8, {}),
        ("pan", 31, 21, 3, 2, {"split": (1, 3)}),
        ("pan", 6, 9, 3, 4, {}),
        ("pan-split", 32, 48, 4, 4, {}),
        ("pan-split", 17, 50, 4, 8, LIGHT | {"split": (3, 2)}),
        ("pan-split", 17, 15, 2, 8, LIGHT),
        ("pan-split", 31, 21, 3, 2, {"split": (1, 3)}),
        ("pan-split", 6, 9, 3, 4, LIGHT),
        ("msrresnet-split", 16, 36, 4, 4, {}),
        ("msrresnet-split", 17, 34, 4, 8, LIGHT | {"split": (3, 2)}),
        ("msrresnet-split", 17, 50, 4, 8, NARROW),
        ("msrresnet-split", 17, 15, 2, 8, LIGHT | {"split": (1, 1)}),
        ("msrresnet-split", 31, 21, 3, 2, {"split": (1, 3)}),
        (
            "msrresnet-split",
            *(24, 40, 4, 4),
            NARROW | {"mask": {"order": "pool-then-softmax", "filter_source": "feature"}},
        ),
        ("fsrcnn", 32, 48, 4, 4, {}),
        ("fsrcnn", 33, 50, 3, 2, {"split": (3, 2)}),
        ("fsrcnn", 17, 15, 2, 8, {"split": (1, 1)}),
        ("fsrcnn", 32, 44, 4, 4, {"refine": {"sees_halo": True}}),
        ("fsrcnn", 25, 18, 3, 2, {"refine": {"sees_halo": True}}),
        ("fsrcnn", 17, 31, 2, 8, {"refine": {"sees_halo": True}}),
        ("fsrcnn", 1, 5, 4, 4, {}),
        ("srresnet", 17, 34, 4, 4, {}),
        ("srresnet", 17, 15, 2, 8, {"split": (3, 2)}),
        ("srresnet", 14, 21, 3, 2, {}),
        ("srresnet", 17, 34, 4, 4, PLAIN),
        ("srresnet", 12, 21, 3, 2, PLAIN | {"split": (1, 2)}),
        ("srresnet", 17, 15, 2, 4, PLAIN),
        ("rcan", 13, 34, 4, 4, SHORT_GROUPS | {"split": (1, 1)}),
        ("rcan", 12, 9, 2, 8, SHORT_GROUPS | {"split": (2, 1)}),
        ("rcan", 12, 14, 3, 2, SHORT_GROUPS | {"split": (1, 2)}),
        ("imdn", 17, 34, 4, 4, {}),
        ("imdn", 12, 9, 2, 8, {"split": (1, 1)}),
        ("imdn", 14, 21, 3, 2, {"split": (1, 3)}),
        ("imdn", 16, 20, 4, 4, {"base": {"distilled": 9, "squeezed": 3}}),
    ],
)
def test_plan_equals_the_network(name, height, width, scale, patch_size, settings, kept):
    network = small_network(scale, patch_size, name, **settings)
    image = picture(height, width)
    plan = WEIGHTS[name](network, choose.STORAGES[kept]).plan(height, width, 9)
    exact = kept == "float32"
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    coarse, feature = network.coarse(tensor)
    exact_mask, exact_indices = network.select(feature, 9)
    spread = float(coarse.std()) * 255
    assert spread > 20, "a flat picture proves nothing"
    dense = network(tensor, variant="decomposed")
    assert float(dense.std()) * 255 > 10, "a flat picture proves nothing"

    for _ in range(2):  # the second time with the buffers as the first one left them
        out = plan.buffer().fill_(99)
        plan.coarse(torch.from_numpy(image), out)
        mask, indices = plan.select(9)
        tolerance = 2e-4 if exact else 0.02
        torch.testing.assert_close(mask, exact_mask, atol=tolerance * float(exact_mask.abs().max()), rtol=tolerance)
        assert len(set(indices[0].tolist()) & set(exact_indices[0].tolist())) >= indices.shape[1] - 2
        expected = network(tensor, 9, "masked")  # of its own cells
        plan.refine(exact_indices, out)
        assert_near(plan.crop(out), expected, spread, exact)
        assert_near(plan.dense(torch.from_numpy(image)), dense, spread, exact)


def assert_near(found: torch.Tensor, expected: torch.Tensor, spread: float, exact: bool = False) -> None:
    """Bytes (H, W, 3) against (1, 3, H, W) in [0, 1]; ``exact``: but for what rounding to bytes and to float32 does."""
    difference = (found.permute(2, 0, 1) / 255 - expected[0]).abs() * 255
    if exact:
        assert difference.max() < 0.5 + 0.02
    assert difference.mean() < 0.02 * spread
    assert difference.max() < 0.25 * spread


@pytest.mark.parametrize("kept", choose.STORAGES)
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("count", [1, 5, 33])
def test_any_number_of_cells(name, count, kept):
    """Fewer cells than there is room for, and rows of the grid that are not full."""
    network = small_network(2, 4, name, **{"split": (1, 1)} | (SHORT_GROUPS if name == "rcan" else {}))
    image = picture(28, 24)
    plan = WEIGHTS[name](network, choose.STORAGES[kept]).plan(28, 24, 40)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    coarse, feature = network.coarse(tensor)
    indices = network.select(feature, count)[1]
    with torch.inference_mode():
        plan.coarse(torch.from_numpy(image), None)
        plan.gather(network.select(feature, 40)[1])
        plan.refined()
        plan.gather(indices)
        found = plan.refined()
    expected = network.refined(feature, indices).clamp(0, 1)
    difference = (found / 255 - expected).abs() * 255
    assert found.shape == expected.shape
    assert difference.mean() < 0.02 * float(coarse.std()) * 255
    assert difference.max() < 0.25 * float(coarse.std()) * 255


def test_no_cells_is_the_coarse_image():
    network = small_network()
    image = picture(32, 32)
    run = RfdnWeights(network, PAIRS).plan(32, 32, 0).run(torch.from_numpy(image))
    plan = RfdnWeights(network, PAIRS).plan(32, 32, 5)
    coarse = plan.buffer()
    plan.coarse(torch.from_numpy(image), coarse)
    assert torch.equal(run, coarse)
    assert torch.equal(plan.run(torch.from_numpy(image), k=0), coarse)


def test_what_is_chosen_depends_on_whether_it_is_fast(monkeypatch):
    """And what is asked for runs either way."""
    chosen = MaskGuidedSR(small_network(), device="cpu").info()
    reason = choose.slow(MAPS)
    assert (OWN in chosen["photographs"]) == (reason is None)
    assert (f"a plan of our own: {reason}" in chosen["why not"]) == (reason is not None)
    monkeypatch.setattr(choose, "slow", lambda kept: "they are slow")
    info = MaskGuidedSR(small_network(), device="cpu").info()
    assert OWN not in info["photographs"]
    assert info["why not"][0] == "a plan of our own: they are slow"
    assert OWN in model_of(small_network()).info()["photographs"]
    monkeypatch.setattr(choose, "slow", lambda kept: None)
    assert OWN in MaskGuidedSR(small_network(), device="cpu").info()["photographs"]


def test_photographs_run_through_the_plan_and_say_so():
    network = small_network()
    model = model_of(network, k=6)
    image = picture(20, 30)
    assert model.info()["photographs"] == choose.described(model._runner.planner.storage)
    result = model.upscale(image)
    assert model.info()["prepared"] == ["30x20, K = 6"]
    explained = model.explain(image)
    assert np.array_equal(explained.image, result)
    assert len(explained.indices) == 6
    changed = (explained.image != explained.coarse).any(axis=2)
    for index in range(5 * 8):
        y, x = divmod(index, 8)
        cell = changed[16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        assert cell.size == 0 or bool(cell.any()) == (index in explained.indices)
    for height in (20, 21, 22):
        model.upscale(picture(height, 30))
    assert model.info()["prepared"] == ["30x21, K = 6", "30x22, K = 6"]


@pytest.mark.parametrize("kept", choose.STORAGES)
def test_a_dtype_that_is_asked_for_is_that_of_the_plan(kept):
    """The network itself is converted to bfloat16 then, and the plan's weights must not be."""
    image = picture(20, 30)
    model = model_of(small_network(), k=6, dtype=kept)
    assert model.info()["photographs"] == choose.described(choose.STORAGES[kept])
    result = model.upscale(image)
    assert str(next(model.model.parameters()).dtype) == f"torch.{kept}"
    plan = large_tiles.prepared(RfdnWeights, small_network().halves(), choose.STORAGES[kept]).plan(20, 30, 6)
    assert np.array_equal(result, plan.run(torch.from_numpy(image)).numpy())


@pytest.mark.usefixtures("free_choice")
def test_the_plan_costs_less_than_a_hundredth_of_a_decibel(shared_data, monkeypatch):
    """Of the shipped model on two images of Set5, as README says."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    from quality import photograph_loss, set_pairs

    images = [pair for pair in set_pairs(shared_data / "data/testsets", "Set5", 4) if pair[0].stem in ("bird", "woman")]
    found = photograph_loss(MaskGuidedSR.from_pretrained("rfdn-x4", device="cpu", runtime="own"), images)
    assert OWN in found["run"]
    losses = found["loss_db_by_image"]
    assert sorted(losses) == ["bird", "woman"]
    assert all(abs(loss) < (1e-3 if "float32, " in found["run"] else 0.01) for loss in losses.values()), losses


@pytest.mark.parametrize("kept", choose.STORAGES)
@pytest.mark.parametrize("file", ["pan_x4_zhaohengyuan1.pth", "msrresnet-nf36_x4_XDpaddle.pth", "imdn_x4_Zheng222.pth"])
def test_a_published_file_costs_less_than_two_hundredths_of_a_decibel(shared_data, file, kept):
    file = shared_data / "data/checkpoints" / file
    settings = {"runtime": "own", "dtype": kept}, {"runtime": "pytorch", "dtype": "float32"}
    models = [MaskGuidedSR.from_checkpoint(file, device="cpu", **setting) for setting in settings]
    assert models[0].info()["photographs"].startswith(choose.STORAGES[kept].description)
    for name in ("butterfly", "woman"):
        lr = np.array(Image.open(shared_data / f"data/testsets/Set5/LR_bicubic/X4/{name}x4.png"))
        hr = np.array(Image.open(shared_data / f"data/testsets/Set5/HR/{name}.png"))[: 4 * len(lr), : 4 * len(lr[0])]
        found, exact = (psnr_y(np.asarray(model.upscale(lr)), hr, border=4) for model in models)
        assert abs(found - exact) < (1e-3 if kept == "float32" else 0.02), name


@pytest.mark.parametrize("dtype", ["auto", *choose.STORAGES])
@pytest.mark.parametrize("channels", [8, 9])
def test_a_whole_msrresnet_runs_as_a_base_net_does(channels, dtype):
    """In pair planes with an even number of channels, and by itself in float maps with an odd one."""
    torch.manual_seed(0)
    whole = WholeNetwork(WholeConfig("msrresnet", 3, 2, {"channels": channels})).eval().requires_grad_(False)
    whole.body.conv_last.weight.mul_(10)
    if channels % 2 and dtype == "bfloat16":
        with pytest.raises(InputError, match="there are none for 9 channels, an odd number"):
            model_of(whole, dtype=dtype)
        return
    model = model_of(whole, dtype=dtype)
    image = picture(21, 34)
    exact = whole(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    assert OWN in model.info()["photographs"]
    assert_near(torch.from_numpy(np.asarray(model.upscale(image))), exact.clamp(0, 1), float(exact.std()) * 255)


def test_threads_take_turns():
    model = model_of(small_network(), k=4)
    pictures = [picture(24, 32), picture(24, 32)[::-1]]
    alone = [model.upscale(image) for image in pictures]
    with ThreadPoolExecutor(4) as pool:
        for image, expected in zip(pictures * 8, pool.map(model.upscale, pictures * 8), strict=True):
            assert np.array_equal(expected, alone[0] if image is pictures[0] else alone[1])


def test_other_types_and_networks_have_no_convolutions_of_our_own():
    model = MaskGuidedSR(small_network(), dtype="float16", device="cpu")
    assert model.info()["photographs"] == "float16, in PyTorch"
    assert model.info()["why not"][0] == "a plan of our own: dtype float16 was asked for"
    other = MaskGuidedSR(MaskGuidedNetwork(ModelConfig("imdn-split", 2)), device="cpu")
    assert "there are none for imdn-split yet" in other.info()["why not"][0]


def test_images_below_the_smallest_size_are_extended():
    network = small_network()
    found = model_of(network, k=2).upscale(picture(5, 40))
    exact = MaskGuidedSR(network, k=2, device="cpu", dtype="float32", runtime="pytorch").upscale(picture(5, 40))
    assert found.shape == exact.shape == (20, 160, 3)
    assert np.abs(found.astype(int) - exact).mean() < 3


def test_patches_can_be_kept_and_loaded():
    """What is refined from a copy of the patches is what is refined from the feature, in another plan too."""
    for model in (*(RfdnWeights(small_network(), kept) for kept in (MAPS, PAIRS)), ModulePlanner(small_network())):
        plan, other = model.plan(24, 32, 12), model.plan(16, 16, 9)
        with torch.inference_mode():
            plan.coarse(torch.from_numpy(picture(24, 32)), None)
            _, indices = plan.select(9)
            plan.gather(indices)
            kept, expected = plan.patches(), plan.refined().clone()
            other.load(kept[:5])
            assert torch.equal(other.refined(), expected[:5])
            other.load(kept)
            assert torch.equal(other.refined(), expected)


def test_a_given_buffer_takes_the_result():
    for size in ((20, 28), (21, 30)):  # whole cells, and not
        model = model_of(small_network(), k=4)
        image, out = picture(*size), np.zeros((4 * size[0], 4 * size[1], 3), np.uint8)
        expected = model.upscale(image)
        assert model.upscale(image, out=out) is out
        assert np.array_equal(out, expected)
    for wrong in (out[:-1], out.astype(float), out[:, ::2], [1]):
        with pytest.raises(InputError, match="out"):
            model.upscale(image, out=wrong)
    with pytest.raises(InputError, match=r"of a uint8 array \(H, W, 3\) only"):
        model.upscale(picture(20, 28)[..., 0], out=out)


@pytest.mark.parametrize("kept", choose.STORAGES)
def test_memory_is_estimated_well(kept):
    """Bytes of the planes that a plan allocates, against the estimate that refuses images too large."""
    weights, _ = runtimes.prepare(small_network(), torch.device("cpu"), getattr(torch, kept), "own")
    for height, width, k in ((540, 960, 1000), (100, 75, 200)):
        plan = weights.plan(height, width, k)
        tensors: set[int] = set()

        def total(value: object, tensors: set[int] = tensors) -> int:
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()  # planes may lie in those of others
                new = storage.data_ptr() not in tensors
                tensors.add(storage.data_ptr())
                return storage.nbytes() * new
            if isinstance(value, PairWeights):
                return 0
            if isinstance(value, list):
                return sum(map(total, value))
            return sum(map(total, vars(value).values())) if hasattr(value, "__dict__") else 0

        picture_bytes = 3 * 16 * height * width
        expected = total(plan) + picture_bytes + weights.room_bytes(plan)
        assert 0.99 < weights.bytes_needed(height, width, k) / expected < 1.1
        plan.whole_feature()
        tensors.clear()
        expected = total(plan) + picture_bytes + weights.room_bytes(plan, dense=True)
        assert 0.99 < weights.bytes_needed(height, width, k, dense=True) / expected < 1.1
