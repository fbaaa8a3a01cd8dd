"""Training: configuration, feature cache, the identity start, exact resume, and a whole small run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import save_smooth_picture
from PIL import Image

from mga.resize import imresize
from mga.train import loop
from mga.train.config import TrainConfig, load_config
from mga.train.features import CellSampler, FeatureCache, linear_part, luma_cells, view
from mga.train.identity import start_at_identity, trunk_parameters
from mga.train.mask import start_as_probability
from mga.train.packs import oriented
from mga.train.pipeline import build_network, train
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_model, read_metadata
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import ModelConfig, rfdn
from mga_kernels.networks.mask import MaskPrediction

CONFIG = """
recipe = "refine-only"
network = "rfdn"
scale = 2
base = "{folder}/base.pth"
out = "{folder}/out"
views = 2
bf16 = false
save_every = 2
licence = {{ weights = "CC0" }}

[[folders]]
path = "{folder}/hr"
holdout = 1

[refine]
iterations = 4
cells_per_batch = 16
warmup = 1

[mask]
iterations = 4
crops_per_batch = 2
crop = 16
warmup = 1
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A configuration with two smooth pictures and a random Base-Net of RFDN x2."""
    (tmp_path / "hr").mkdir()
    for seed, (name, size) in enumerate((("a", (72, 88)), ("b", (64, 80)))):
        save_smooth_picture(tmp_path / "hr" / f"{name}.png", *size, seed)
    torch.manual_seed(0)
    base = rfdn.BaseNet(2)
    with torch.no_grad():  # an upsampler strong enough that the picture depends on the feature
        base.upsampler[0].weight.mul_(3)
    torch.save(base.state_dict(), tmp_path / "base.pth")
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def configure(folder: Path, **overrides: str) -> TrainConfig:
    return load_config(folder / "config.toml", {name.replace("__", "."): value for name, value in overrides.items()})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).state_dict()


def test_configuration_is_typed_and_overridable(run_folder):
    config = configure(run_folder, refine__learning_rate="1", folders="[{path = 'x', shrink = [2, 4]}]", seed="7")
    assert config.refine.learning_rate == 1.0
    assert config.folders[0].shrink == [2, 4]
    assert (config.seed, config.mask.crop, config.licence) == (7, 16, {"weights": "CC0"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"refine__speed": "1"}, r"unknown setting config\.refine\.speed"),
        ({"scale": "'4'"}, r"config\.scale must be of type int"),
        ({"folders": "[]"}, "name at least one folder"),
        ({"folders": "[{shrink = [1]}]"}, r"folders\[0\]\.path is missing"),
        ({"refine__loss": "l3"}, r'must be "l1" or "l2"'),
        ({"views": "9"}, "must be 1 to 8"),
        ({"split": "a+b"}, r"such as 4\+2, got 'a\+b'"),
        ({"split": "3"}, r"config\.split must be of type str"),
        ({"patch_size": "3"}, "patch_size 3 is not supported"),
        ({"selection": "best"}, "selection 'best' is not supported"),
        ({"k": "-1"}, "k must be a whole number of patches"),
        ({"network": "edsr"}, "'edsr' is not known"),
        ({"base": "'${NO_SUCH_VARIABLE}/base.pth'"}, "an environment variable that is not set"),
    ],
)
def test_wrong_configurations_are_refused(run_folder, overrides, message):
    with pytest.raises(InputError, match=message):
        configure(run_folder, **overrides)


@pytest.mark.parametrize("content", [None, "network = "])
def test_unreadable_configurations_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError, match="train: "):
        load_config(tmp_path / "config.toml")


def test_settings_that_are_not_given_are_the_papers(run_folder):
    mask = {"classes": 2, "order": "softmax-then-pool", "filter_source": "probability"}
    assert configure(run_folder).model_config() == ModelConfig("rfdn", 2, 4, 1000, (4, 2), "largest", mask=mask)


def test_missing_images_and_wrong_base_are_refused(run_folder):
    with pytest.raises(InputError, match="there is no folder"):
        train(configure(run_folder, folders="[{path = '/nowhere'}]"))
    with pytest.raises(InputError, match="2 are held out; none is left"):
        train(configure(run_folder, folders=f"[{{path = '{run_folder}/hr', holdout = 2}}]"))
    with pytest.raises(CheckpointError, match="not the Base-Net of rfdn x4"):
        train(configure(run_folder, scale="4"))
    with pytest.raises(InputError, match="fsrcnn is not there yet"):
        train(configure(run_folder, network="fsrcnn"))
    with pytest.raises(InputError, match=r"config\.initial must name"):
        train(configure(run_folder), steps=("mask",))


def test_views_are_eight_orientations_of_shifted_grids():
    image = np.arange(13 * 14 * 2).reshape(13, 14, 2)
    for scale in (2, 3, 4):
        views = [view(image, number, scale) for number in range(8)]
        corners = [min(picture.ravel()) for picture in views]
        shifts = {divmod(corner // 2, 14) for corner in corners}
        assert max(max(shift) for shift in shifts) == scale - 1
        assert len(shifts) == min(8, scale**2)
    assert len({oriented(image[:13, :13], o).tobytes() for o in range(8)}) == 8


def test_luma_cells_are_means_of_absolute_luma():
    difference = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    red, green, blue = difference[0]
    luma = (65.481 * red + 128.553 * green + 24.966 * blue).abs() / 255
    expected = torch.stack([luma[y : y + 2, x : x + 2].mean() for y in (0, 2) for x in (0, 2, 4)]).reshape(1, 2, 3)
    torch.testing.assert_close(luma_cells(difference, 2), expected)


@pytest.mark.parametrize("number", [0, 1])
def test_cached_cells_are_those_of_the_images(run_folder, number):
    config = configure(run_folder, normalise="false")
    network = build_network(config)
    cache = FeatureCache(config, network.base, 255.0)
    assert len(cache.images) == 2
    hr = np.array(Image.open(run_folder / "hr/a.png"))
    if number == 1:  # one pixel down and right, turned by 90 degrees, cropped to whole cells
        hr = np.rot90(hr[1:, 1:])[: (87 // 8) * 8, : (71 // 8) * 8]
    with torch.no_grad():
        coarse, feature = network.base(torch.from_numpy(imresize(hr, 0.5)).permute(2, 0, 1)[None].float())
    padded = torch.nn.functional.pad(feature, (1, 1, 1, 1))[0]
    sampler = CellSampler(cache, hard_share=0.5, seed=1)
    rows, columns = hr.shape[0] // 8, hr.shape[1] // 8
    cells = [(0, 0), (1, 3), (rows - 1, columns - 1)]
    features, targets = sampler.fetch(np.array([sampler.starts[number] + y * columns + x for y, x in cells]))
    for i, (y, x) in enumerate(cells):
        torch.testing.assert_close(features[i], padded[:, 4 * y : 4 * y + 6, 4 * x : 4 * x + 6], rtol=2e-3, atol=1e-3)
        expected = hr[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] / np.float32(255)
        np.testing.assert_allclose(targets[i].permute(1, 2, 0), expected, atol=1e-3)
    expected = np.square((coarse[0, :, :8, :8] / 255).clamp(0, 1).permute(1, 2, 0).numpy() - hr[:8, :8] / 255).mean()
    assert sampler.coarse_mse(sampler.starts[number : number + 1]) == pytest.approx(expected, rel=1e-3)


def test_the_linear_part_is_the_least_squares_fit():
    rng = np.random.default_rng(4)
    feature = np.pad(rng.normal(size=(12, 15, 5)), ((1, 1), (1, 1), (0, 0))).astype(np.float16)
    residual = rng.normal(size=(24, 30, 3)).astype(np.float32)
    explained = linear_part(residual, feature)
    assert explained.shape == residual.shape
    windows = np.lib.stride_tricks.sliding_window_view(feature.astype(np.float64), (3, 3), axis=(0, 1))
    rows = np.concatenate([windows.reshape(12 * 15, -1), np.ones((12 * 15, 1))], axis=1)
    for phase in np.ndindex(2, 2, 3):
        wanted = residual[phase[0] :: 2, phase[1] :: 2, phase[2]].ravel()
        fitted = rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
        found = explained[phase[0] :: 2, phase[1] :: 2, phase[2]].ravel()
        np.testing.assert_allclose(found, fitted, atol=2e-3)


def test_a_picture_that_is_only_sharper_leaves_nothing_to_learn(run_folder):
    """Its residual is a linear filter of the feature; noise added to it is left."""
    network = build_network(configure(run_folder))
    with torch.no_grad():
        coarse, feature = network.base(torch.rand(1, 3, 40, 40) * 255)
        sharper = network.base.upsample(1.1 * feature)
    padded = torch.nn.functional.pad(feature[0], (1, 1, 1, 1)).permute(1, 2, 0).numpy()
    residual = ((sharper - coarse)[0] / 255).permute(1, 2, 0).numpy()
    left = residual - linear_part(residual, padded)
    assert np.square(left).mean() < 1e-4 * np.square(residual).mean()
    noise = np.random.default_rng(5).normal(size=residual.shape).astype(np.float32)
    left = noise - linear_part(noise, padded)
    assert np.square(left).mean() > 0.5


def test_hard_cells_are_drawn_in_proportion_to_their_error(run_folder):
    config = configure(run_folder)
    cache = FeatureCache(config, build_network(config).base, 255.0)
    sampler = CellSampler(cache, hard_share=1.0, seed=1)
    drawn = np.bincount(sampler.draw(200_000), minlength=sampler.starts[-1]) / 200_000
    errors = np.concatenate([image.error.ravel() for image in cache.images])
    np.testing.assert_allclose(drawn, errors / errors.sum(), atol=0.15 / len(errors) + 2e-3)


@pytest.mark.parametrize("hard_share", [0.25, 0.5])
def test_weights_make_the_mean_over_drawn_cells_that_over_all(run_folder, hard_share):
    config = configure(run_folder)
    cache = FeatureCache(config, build_network(config).base, 255.0)
    sampler = CellSampler(cache, hard_share, seed=1)
    quantity = np.concatenate([image.squared.ravel() for image in cache.images]).astype(np.float64)
    cells = sampler.draw(200_000)
    weighted = (sampler.weights(cells).numpy() * quantity[cells]).mean()
    noise = quantity.std() / len(cells) ** 0.5
    assert abs(weighted - quantity.mean()) < 5 * noise
    assert quantity[cells].mean() - quantity.mean() > 10 * noise


def test_the_refine_net_starts_as_the_coarse_image():
    torch.manual_seed(1)
    base, refine = rfdn.BaseNet(4), rfdn.RefineNet(4)
    with torch.no_grad():
        _, feature = base(torch.rand(2, 3, 40, 40) * 255)
    start_at_identity(base, refine, feature.abs().amax(dim=(0, 2, 3)))
    with torch.no_grad():
        expected = base.upsampler(feature)[:, :, 32:48, 40:56]
        deviation = (refine(feature[:, :, 7:13, 9:15]) - expected).abs().max()
        elsewhere = (refine(feature[:, :, 7:13, 13:19]) - expected).abs().max()
    assert deviation < 1e-3 * expected.std()
    assert elsewhere > 0.1 * expected.std()


def test_scaling_the_trunks_last_convolution_scales_the_correction():
    torch.manual_seed(2)
    base, refine = rfdn.BaseNet(2), rfdn.RefineNet(2)
    start_at_identity(base, refine, torch.full((50,), 50.0))
    trained = trunk_parameters(refine)
    trunk = (refine.B1, refine.B2, refine.c, refine.LR_conv)
    assert {id(p) for p in trained} == {id(p) for part in trunk for p in part.parameters()}
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.005 * torch.randn_like(parameter))
        patches = torch.randn(5, 50, 6, 6)
        correction = refine(patches) - refine.tail(patches)
        for parameter in refine.LR_conv.parameters():
            parameter.mul_(0.25)
        torch.testing.assert_close(refine(patches) - refine.tail(patches), 0.25 * correction, rtol=1e-3, atol=1e-4)
    assert correction.abs().max() > 1e-2


def test_the_mask_starts_as_the_probability():
    torch.manual_seed(3)
    mask = MaskPrediction(12, 4)
    start_as_probability(mask)
    feature = torch.randn(1, 12, 16, 24)
    with torch.no_grad():
        scores = mask.conv2(mask.conv1(feature).relu())
        expected = torch.nn.functional.avg_pool2d(scores.softmax(1), 4)[:, 1]
        torch.testing.assert_close(mask(feature), expected)


def test_a_stopped_run_ends_with_the_same_weights(run_folder, monkeypatch):
    whole = train(configure(run_folder, out=f"{run_folder}/whole"))
    saves = []

    def stop_after_save(path, state):
        original(path, state)
        saves.append(path.name)
        if len(saves) in (1, 3):
            raise KeyboardInterrupt

    original = loop.save_state
    monkeypatch.setattr(loop, "save_state", stop_after_save)
    config = configure(run_folder, out=f"{run_folder}/stopped")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config)
    stopped = train(config)
    assert saves == ["refine.state", "refine.state", "mask.state", "mask.state"]
    expected, found = weights(whole), weights(stopped)
    start = build_network(config).state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert not torch.equal(expected["refine.B1.c1_r.weight"], start["base.B3.c1_r.weight"]), "nothing was trained"
    assert torch.equal(expected["base.LR_conv.weight"], start["base.LR_conv.weight"]), "the Base-Net is frozen"


def test_the_result_is_a_model_that_says_how_it_was_made(run_folder):
    path = train(configure(run_folder))
    facts = read_metadata(path)
    assert facts["licence"] == {"weights": "CC0"}
    assert facts["training"]["images"]["hr"] == {"shrink": [1], "files": ["a.png"], "held_out": ["b.png"]}
    assert set(facts["training"]["results"]) == {"refine", "mask"}
    assert str(run_folder) not in str(facts), "a path of this machine is in the file"
    result = MaskGuidedSR.from_pretrained(path, fraction=0.5)(torch.rand(1, 3, 20, 24))
    assert result.isfinite().all()


def test_settings_of_the_ablations_reach_the_model(run_folder):
    """Every setting of section 4.4 that is not the paper's, in one run; the file says so and runs."""
    torch.save(rfdn.BaseNet(2, blocks=3).state_dict(), run_folder / "base3.pth")
    cheap = {"normalise": "false", "views": "1", "refine__iterations": "2", "mask__iterations": "2"}
    settings = {"split": "3+3", "patch_size": "2", "selection": "smallest", "k": "7", "mask__classes": "1"}
    path = train(
        configure(run_folder, base=f"{run_folder}/base3.pth", out=f"{run_folder}/ablation", **settings, **cheap)
    )
    model = load_model(path)
    mask = {"classes": 1, "order": "softmax-then-pool", "filter_source": "probability"}
    assert model.config == ModelConfig("rfdn", 2, 2, 7, (3, 3), "smallest", mask=mask)
    assert not hasattr(model.base, "B4")
    assert model.mask.conv2.out_channels == 1
    assert "refine.B3.c1_r.weight" in weights(path)
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        _, feature = model.coarse(image)
        assert model.mask(feature).shape == (1, 10, 12)
        _, worst = model.select(feature, 7, "smallest")
        coarse, refined = model(image, variant="base")[0], model(image)[0]
    changed = (coarse != refined).any(dim=0).reshape(10, 4, 12, 4).any(3).any(1).flatten().nonzero().flatten()
    assert changed.tolist() == worst[0].tolist()


def test_settings_that_do_not_fit_together_are_refused(run_folder):
    with pytest.raises(CheckpointError, match="not the Base-Net of rfdn x2 with 3 blocks"):
        train(configure(run_folder, split="3+3"))
    with pytest.raises(InputError, match=r"'2\+4' gives the Refine-Net more blocks"):
        train(configure(run_folder, split="2+4"))
    cheap = {"normalise": "false", "views": "1", "refine__iterations": "1", "mask__iterations": "1"}
    first = train(configure(run_folder, **cheap))
    train(configure(run_folder, k="5", selection="random", **cheap))
    with pytest.raises(InputError, match=r"out holds a run with patch_size = 4, this one has 8; change config\.out"):
        train(configure(run_folder, patch_size="8"))
    again = {"initial": str(first), "out": f"{run_folder}/again"}
    with pytest.raises(CheckpointError, match=r"has split = \(4, 2\), the configuration \(4, 1\)"):
        train(configure(run_folder, split="4+1", **again))
    again["out"] += "2"
    with pytest.raises(CheckpointError, match="has classes = 2, the configuration 1"):
        train(configure(run_folder, mask__classes="1", **again), steps=("refine",))


def test_training_goes_on_from_weights(run_folder):
    first = train(configure(run_folder))
    again = {"initial": str(first), "out": f"{run_folder}/again"}
    network = build_network(configure(run_folder))
    unchanged = train(configure(run_folder, refine__learning_rate="0.0", refine__final_learning_rate="0.0", **again))
    for name in network.refine.state_dict():
        torch.testing.assert_close(
            weights(unchanged)[f"refine.{name}"], weights(first)[f"refine.{name}"], rtol=1e-4, atol=1e-4
        )
    mask_only = train(configure(run_folder, initial=str(first), out=f"{run_folder}/mask"), steps=("mask",))
    assert torch.equal(weights(mask_only)["refine.conv2.weight"], weights(first)["refine.conv2.weight"])


def test_a_loss_that_is_no_number_ends_the_run(run_folder):
    with pytest.raises(loop.TrainingError, match=r"loss of step refine became nan .* lower refine\.learning_rate"):
        train(configure(run_folder, refine__learning_rate="1e30", refine__iterations="50"))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1e-5), (5, 5.5e-5), (10, 1e-4), (60, 0.5 * (1e-4 + 1e-7)), (110, 1e-7)]
)
def test_learning_rate_warms_up_and_falls_by_a_cosine(step, expected):
    assert loop.learning_rate(step, 110, 10, 1e-4, 1e-7) == pytest.approx(expected)
