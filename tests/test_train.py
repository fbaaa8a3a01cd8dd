"""Training: configuration files, the weights that it starts from, luma and orientation, the schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mga.cli import main
from mga.evaluation.masks import luma_cells
from mga.training import loop
from mga.training.packs import oriented, write_pack
from mga.training.recipe import Recipe, load_recipe
from mga.training.run import Budget
from mga.training.start import start_as_probability
from mga.training.three_step import ThreeStep
from mga_kernels.architectures.rfdn import network as rfdn
from mga_kernels.architectures.rfdn.extension import start_at_coarse_image, trunk_parameters
from mga_kernels.checkpoints import load_model, read_metadata
from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig
from mga_kernels.networks.mask import MaskPrediction

pytestmark = pytest.mark.usefixtures("few_colours")
CONFIG = """
network = "rfdn"
scale = 2
out = "{folder}/out"
train = ["{folder}/train.safetensors"]
crop = 16
batch = 2
licence = {{ weights = "CC0" }}

[dense]
iterations = 2
periods = 1

[all]
iterations = 1
periods = 1

[mask]
iterations = 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of RFDN x2 on one pair of noise, which is not made yet."""
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path / "config.toml"


def configure(config: Path, **overrides: str) -> Recipe:
    return load_recipe(config, {name.replace("__", "."): value for name, value in overrides.items()})


def test_configuration_is_typed_and_overridable(config):
    recipe = configure(config, mask__learning_rate="1", train="['x', 'y']", seed="7")
    assert recipe.mask.learning_rate == 1.0
    assert recipe.train == ["x", "y"]
    assert (recipe.seed, recipe.dense.iterations, recipe.licence) == (7, 2, {"weights": "CC0"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mask__speed": "1"}, r"unknown setting config\.mask\.speed"),
        ({"scale": "'4'"}, r"config\.scale must be of type int"),
        ({"train": "[1]"}, r"config\.train\[0\] must be of type str"),
        ({"split": "a+b"}, r"such as 4\+2, got 'a\+b'"),
        ({"split": "3"}, r"config\.split must be of type str"),
        ({"patch_size": "3"}, "patch_size 3 is not supported"),
        ({"selection": "best"}, "selection 'best' is not supported"),
        ({"k": "-1"}, "k must be a whole number of patches"),
        ({"network": "residual"}, "'residual' is not known"),
        ({"initial": "'${NO_SUCH_VARIABLE}/base'"}, "an environment variable that is not set"),
        ({"recipe": "two-step"}, 'config.recipe must be "three-step" or "classes"'),
        ({"dense": "3"}, r"config\.dense must be a table"),
    ],
)
def test_wrong_configurations_are_refused(config, overrides, message):
    with pytest.raises(InputError, match=message):
        configure(config, **overrides)


@pytest.mark.parametrize("content", [None, "network = "])
def test_unreadable_configurations_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError, match="train: "):
        load_recipe(tmp_path / "config.toml")


def test_the_recipe_that_is_no_more_says_what_there_is_instead(tmp_path, capsys):
    text = 'recipe = "refine-only"\nnetwork = "rfdn"\nscale = 4\nbase = "base.pth"\nout = "out"\nviews = 4\n'
    (tmp_path / "config.toml").write_text(text + '[[folders]]\npath = "hr"\n[refine]\niterations = 5\n')
    assert main(["train", str(tmp_path / "config.toml")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in ('"refine-only" is no more', "mga convert CKPT --extend N", '"three-step"'):
        assert words in error


def test_settings_that_are_not_given_are_the_papers(config):
    mask = {"classes": 2, "order": "softmax-then-pool", "filter_source": "probability"}
    assert configure(config).model_config() == ModelConfig("rfdn", 2, 4, 1000, (4, 2), "largest", mask=mask)


def test_settings_of_the_ablations_reach_the_model(config):
    """Every setting of section 4.4 that is not the paper's, in one run; the file says so and runs."""
    hr = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    write_pack(config.parent / "train.safetensors", [("a", (hr, hr[::2, ::2]))], 2)
    settings = {"split": "3+3", "patch_size": "2", "selection": "smallest", "k": "7", "classes": "1"}
    path = ThreeStep(configure(config, **settings), Budget()).run()
    facts = read_metadata(path)
    assert facts["licence"] == {"weights": "CC0"}
    assert str(config.parent) not in str(facts), "a path of this machine is in the file"
    model = load_model(path)
    mask = {"classes": 1, "order": "softmax-then-pool", "filter_source": "probability"}
    assert model.config == ModelConfig("rfdn", 2, 2, 7, (3, 3), "smallest", mask=mask)
    assert not hasattr(model.base, "B4")
    assert model.mask.conv2.out_channels == 1
    assert "refine.B3.c1_r.weight" in model.state_dict()
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        _, feature = model.coarse(image)
        assert model.mask(feature).shape == (1, 10, 12)
        _, worst = model.select(feature, 7, "smallest")
        coarse, refined = model(image, variant="base")[0], model(image)[0]
    changed = (coarse != refined).any(dim=0).reshape(10, 4, 12, 4).any(3).any(1).flatten().nonzero().flatten()
    assert changed.tolist() == worst[0].tolist()


def test_there_are_eight_orientations():
    image = np.arange(13 * 13 * 2).reshape(13, 13, 2)
    assert len({oriented(image, number).tobytes() for number in range(8)}) == 8


def test_luma_cells_are_means_of_absolute_luma():
    difference = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    red, green, blue = difference[0]
    luma = (65.481 * red + 128.553 * green + 24.966 * blue).abs() / 255
    expected = torch.stack([luma[y : y + 2, x : x + 2].mean() for y in (0, 2) for x in (0, 2, 4)]).reshape(1, 2, 3)
    torch.testing.assert_close(luma_cells(difference, 2), expected)


def test_the_refine_net_starts_as_the_coarse_image():
    torch.manual_seed(1)
    base, refine = rfdn.BaseNet(4), rfdn.RefineNet(4)
    with torch.no_grad():
        _, feature = base(torch.rand(2, 3, 40, 40) * 255)
    start_at_coarse_image(base, refine, (base.blocks, refine.blocks), feature.abs().amax(dim=(0, 2, 3)))
    with torch.no_grad():
        expected = base.upsampler(feature)[:, :, 32:48, 40:56]
        deviation = (refine(feature[:, :, 7:13, 9:15]) - expected).abs().max()
        elsewhere = (refine(feature[:, :, 7:13, 13:19]) - expected).abs().max()
    assert deviation < 1e-3 * expected.std()
    assert elsewhere > 0.1 * expected.std()


def test_scaling_the_trunks_last_convolution_scales_the_correction():
    torch.manual_seed(2)
    base, refine = rfdn.BaseNet(2), rfdn.RefineNet(2)
    start_at_coarse_image(base, refine, (base.blocks, refine.blocks), torch.full((50,), 50.0))
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


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1e-5), (5, 5.5e-5), (10, 1e-4), (60, 0.5 * (1e-4 + 1e-7)), (110, 1e-7)]
)
def test_learning_rate_warms_up_and_falls_by_a_cosine(step, expected):
    assert loop.Schedule(110, 1, 10, 1e-5, 1e-4, 1e-7).rate(step) == pytest.approx(expected)
