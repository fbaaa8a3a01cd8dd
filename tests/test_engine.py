"""MaskGuidedSR on tensors and photographs: what must be equal, what K means, and what is refused."""

from __future__ import annotations

import gc
import io
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_zoo import SHORT_GROUPS
from PIL import Image

from mga_kernels import MaskGuidedSR, ops
from mga_kernels.engine import runner
from mga_kernels.errors import CheckpointError, InputError, OutOfMemoryError
from mga_kernels.images import read_image
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.layers import mirror_indices


def make_model(network: str = "fsrcnn", scale: int = 4, k=None, fraction=None, **settings) -> MaskGuidedSR:
    """What runs photographs as it runs tensors, so that they can be compared."""
    torch.manual_seed(5)
    made = MaskGuidedNetwork(ModelConfig(network, scale, **settings))
    return MaskGuidedSR(made, k, fraction, device="cpu", dtype="float32", runtime="pytorch")


def picture(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise, so that neighbouring cells differ but not wildly."""
    noise = torch.rand(
        batch, 3, (height + 3) // 4 + 1, (width + 3) // 4 + 1, generator=torch.Generator().manual_seed(seed)
    )
    return F.interpolate(noise, size=(height, width), mode="bilinear")


@pytest.mark.parametrize("network", ["fsrcnn", "rfdn"])
@pytest.mark.parametrize("variant", ["base", "decomposed", "all", "masked"])
def test_a_batch_equals_single_images(network, variant):
    model = make_model(network, k=9)
    images = picture(4, 22, 35)
    together = model(images, variant)
    alone = torch.cat([model(image[None], variant) for image in images])
    assert together.shape == (4, 3, 88, 140)
    assert (together - alone).abs().max() <= 1e-6


@pytest.mark.parametrize("network", ["fsrcnn", "rfdn"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 3), (16, 16), (17, 30), (33, 20)])
def test_any_size_and_all_cells_masked_equals_all(network, height, width):
    model = make_model(network, 3)
    image = picture(1, height, width)
    result = model(image, fraction=1.0)
    assert result.shape == (1, 3, 3 * height, 3 * width)
    assert (result - model(image, "all")).abs().max() <= 1e-6
    assert (model(image, k=0) - model(image, "base")).abs().max() <= 1e-6


def test_cells_beyond_the_border_hold_the_reflected_feature():
    model = make_model("fsrcnn", 2)
    image = picture(1, 10, 13)
    coarse, feature = model.model.base(image)
    patches = F.unfold(F.pad(feature, (0, 3, 0, 2), mode="reflect"), 6, padding=1, stride=4)
    refined = model.model.refine(patches[0].T.reshape(-1, 12, 6, 6))
    expected = refined.reshape(3, 4, 3, 8, 8).permute(2, 0, 3, 1, 4).reshape(1, 3, 24, 32)[..., :20, :26]
    assert (model(image, "all") - expected.clamp(0, 1)).abs().max() <= 1e-6
    assert torch.equal(model(image, "base"), coarse.clamp(0, 1)), "the Base-Net must see the image as it is"


@pytest.mark.parametrize(("length", "padded", "expected"), [(1, 4, [0, 0, 0, 0]), (2, 7, [0, 1, 0, 1, 0, 1, 0])])
def test_short_axes_are_mirrored_repeatedly(length, padded, expected):
    assert mirror_indices(length, padded, torch.device("cpu")).tolist() == expected


def test_selection_changes_the_result_and_random_follows_its_seed():
    model = make_model(k=6)
    image = picture(1, 32, 32)
    by_order = {order: model(image, selection=order, seed=3) for order in ("largest", "smallest", "random")}
    assert not torch.equal(by_order["largest"], by_order["smallest"])
    assert torch.equal(by_order["random"], model(image, selection="random", seed=3))
    assert not torch.equal(by_order["random"], model(image, selection="random", seed=4))


@pytest.mark.parametrize(
    ("own", "call", "expected"),
    [
        ({}, {}, 1000),
        ({"k": 7}, {}, 7),
        ({"k": 10**6}, {}, 2400),
        ({"fraction": 0.25}, {}, 600),
        ({"k": 7}, {"fraction": 0.5}, 1200),
        ({"fraction": 0.25}, {"k": 3}, 3),
        ({"fraction": 0.0}, {}, 0),
    ],
)
def test_resolve_k(own, call, expected):
    assert make_model(**own).resolve_k(160, 240, **call) == expected


@pytest.mark.parametrize("arguments", [{"k": -1}, {"k": 2.5}, {"k": True}, {"fraction": -0.1}, {"fraction": 1.01}])
def test_impossible_k_is_refused(arguments):
    with pytest.raises(InputError, match="K: "):
        make_model(**arguments)
    with pytest.raises(InputError, match="K: "):
        make_model()(picture(1, 8, 8), **arguments)


def test_k_and_fraction_together_are_refused():
    with pytest.raises(InputError, match="not both"):
        make_model(k=1, fraction=0.5)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 8, 8), r"expected a float tensor \(B, 3, H, W\)"),
        (torch.zeros(1, 1, 8, 8), "expected a float tensor"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "expected a float tensor"),
        (torch.zeros(1, 3, 8, 8).to(torch.float8_e5m2), "expected a tensor of float32, .* got torch.float8_e5m2"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "got one on the device meta"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "got one of layout sparse_coo"),
        (np.zeros((1, 3, 8, 8), np.float32), "got ndarray"),
        (torch.zeros(1, 3, 0, 8), "empty"),
        (torch.full((1, 3, 8, 8), float("nan")), "remove NaN"),
        (torch.full((1, 3, 8, 8), 255.0), "divide 8-bit values by 255"),
        (torch.full((1, 3, 8, 8), -0.1), r"numbers in \[0, 1\]"),
    ],
)
def test_wrong_tensors_are_refused(tensor, message):
    with pytest.raises(InputError, match=message):
        make_model()(tensor)


@pytest.mark.parametrize("arguments", [{"variant": "best"}, {"selection": "first"}])
def test_unknown_names_are_refused(arguments):
    with pytest.raises(InputError, match="choose one of"):
        make_model()(picture(1, 8, 8), **arguments)


@pytest.mark.parametrize(
    "arguments", [{"device": "cuda:99"}, {"device": "toaster"}, {"device": "meta"}, {"device": None}, {"dtype": "int8"}]
)
def test_impossible_devices_and_types_are_refused(arguments):
    with pytest.raises(InputError, match=r"cannot be used|not supported"):
        MaskGuidedSR(MaskGuidedNetwork(ModelConfig("fsrcnn", 2)), **arguments)


def test_an_image_beyond_memory_is_refused_before_it_is_made():
    huge = torch.zeros(1, 1, 1, 1).expand(1, 3, 10**6, 10**6)
    with pytest.raises(OutOfMemoryError, match=r"1000000x1000000 to 4000000x4000000.* GiB .*smaller"):
        with make_model()._runner.memory_guard(huge.shape):
            pytest.fail("the guard let it pass")


def test_the_allocators_own_error_is_translated(monkeypatch):
    model = make_model()
    monkeypatch.setattr(runner, "require_memory", lambda *_: None)
    monkeypatch.setattr(model.model.base, "forward", lambda _: torch.empty(1 << 60))
    with pytest.raises(OutOfMemoryError, match="needs more memory than cpu has"):
        model(picture(1, 8, 8))


def test_working_memory_estimate_covers_the_measured_peak():
    """The estimate that refuses images is no smaller than what the Base-Net keeps alive at its peak."""
    small = {"srresnet": {"split": (1, 1)}, "rcan": {"split": (1, 1), **SHORT_GROUPS}}
    for network in ("fsrcnn", "rfdn", "pan", "srresnet", "rcan"):
        model = MaskGuidedSR(MaskGuidedNetwork(ModelConfig(network, 4, **small.get(network, {}))), device="cpu")
        image = picture(1, 160, 160)
        peak = _peak_bytes(lambda m=model, i=image: m(i))
        estimate = 160 * 160 * 4 * model.config.definition.working_values
        assert 0.5 * estimate <= peak <= estimate, (network, peak / (160 * 160 * 4))


def _peak_bytes(run) -> int:
    """Most bytes of tensors alive at once, from the profiler's record of allocations."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def test_bf16_is_near_fp32():
    network = MaskGuidedNetwork(ModelConfig("fsrcnn", 2))
    image = picture(1, 16, 16)
    exact = MaskGuidedSR(network, device="cpu")(image, "all")
    rounded = MaskGuidedSR(network, device="cpu", dtype="bfloat16")(image, "all")
    assert rounded.dtype == image.dtype
    assert (exact - rounded).abs().max() < 0.02


def test_upscale_returns_what_it_was_given(tmp_path):
    torch.manual_seed(5)
    model = MaskGuidedSR(MaskGuidedNetwork(ModelConfig("fsrcnn", 2)), device="cpu", dtype="float32")
    rgb = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    expected = model(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255)
    expected = (expected[0].permute(1, 2, 0) * 255).round().byte().numpy()
    array = model.upscale(rgb)
    np.testing.assert_array_equal(array, expected)
    image = Image.fromarray(rgb)
    image.save(tmp_path / "image.png")
    for source in (image, tmp_path / "image.png", str(tmp_path / "image.png")):
        result = model.upscale(source)
        assert isinstance(result, Image.Image)
        np.testing.assert_array_equal(np.asarray(result), expected)
    np.testing.assert_array_equal(model.upscale(read_image(rgb)).rgb, expected)


def test_an_engine_goes_with_its_last_reference():
    """Its plans hold gigabytes, which are not to wait for the garbage collector."""
    model = MaskGuidedSR(make_model().model, k=3, device="cpu")
    model.upscale(np.zeros((24, 24, 3), np.uint8))
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_upscale_keeps_grey_and_alpha():
    model = make_model("fsrcnn", 2)
    grey = np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8)
    assert model.upscale(grey).shape == (18, 14)
    transparent = np.dstack([grey, grey, grey, np.full_like(grey, 200)])
    result = model.upscale(transparent)
    assert result.shape == (18, 14, 4)
    assert (result[..., 3] == 200).all()


def test_explain_shows_what_upscale_did():
    model = make_model("rfdn", 2, k=5)
    rgb = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    told = model.explain(rgb)
    np.testing.assert_array_equal(told.image, model.upscale(rgb))
    assert told.mask.shape == (5, 8)
    np.testing.assert_array_equal(told.indices, np.sort(np.argsort(-told.mask.ravel(), kind="stable")[:5]))
    changed = (told.image != told.coarse).any(axis=2)
    side = told.scale * told.patch_size
    cells = {int(y // side * 8 + x // side) for y, x in zip(*np.nonzero(changed), strict=True)}
    assert cells
    assert cells <= set(told.indices.tolist())
    assert {"read", "base", "mask", "refine", "write"} <= set(told.timings)


def test_the_road_runs_on_the_fastest_backend_there_is(monkeypatch):
    monkeypatch.delenv("MGA_BACKEND", raising=False)
    make_model()(picture(1, 16, 16))
    ran = {name: ops.last_backend(name) for name in ("gather_patches", "paste_patches_")}
    assert set(ran.values()) == {"cpu"}, ran


def test_from_pretrained_names_the_problem():
    with pytest.raises(CheckpointError, match="nor an existing file"):
        MaskGuidedSR.from_pretrained("nothing")
    with pytest.raises(CheckpointError, match="nor an existing file"):
        MaskGuidedSR.from_pretrained("n" * 5000)
    for what in (None, 5, b"fsrcnn-x2", io.BytesIO()):
        with pytest.raises(InputError, match=f"expected a name or a path, got {type(what).__name__}"):
            MaskGuidedSR.from_pretrained(what)
