"""The training of networks with classes: a branch for each, then the classifier; exact resume, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from packs_made import make_pack

from mga.cli import main
from mga.training import loop
from mga.training.classes import Classes, by_difficulty, class_loss
from mga.training.packs import write_pack
from mga.training.recipe import ClassRecipe, load_recipe
from mga.training.run import Budget
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import read_metadata
from mga_kernels.checkpoints.native import load_native
from mga_kernels.errors import InputError
from mga_kernels.networks import ClassConfig, ClassNetwork, WholeConfig

pytestmark = pytest.mark.usefixtures("few_colours")
CONFIG = """
recipe = "classes"
network = "fsrcnn"
scale = 2
branches = [{{ expanded = 4 }}, {{ expanded = 6 }}, {{ expanded = 8 }}]
window = 16
step = 12
out = "{folder}/out"
train = ["{folder}/train.safetensors"]
validation = "{folder}/train.safetensors"
crop = 16
batch = 4
class_batch = 6
save_every = 2
flat_weight = 0.1
start = "identity"
branch = {{ iterations = 4, periods = 1, warmup = 1, ema_decay = 0.9 }}
classifier = {{ iterations = 5, periods = 1, warmup = 1 }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pack(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def begin(folder: Path, **overrides: str) -> Classes:
    recipe = load_recipe(folder / "config.toml", {name.replace("__", "."): v for name, v in overrides.items()})
    assert isinstance(recipe, ClassRecipe)
    return Classes(recipe, Budget())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_native(path).state_dict()


def test_a_whole_run_gives_a_model_that_says_how_it_was_made(folder, capsys):
    assert main(["train", str(folder / "config.toml")]) == 0
    path = folder / "out/fsrcnn-x2.safetensors"
    assert f"written: {path}" in capsys.readouterr().out
    metadata = read_metadata(path)
    facts, config = metadata["training"], metadata["config"]
    assert facts["iterations"] == {"branch-1": 4, "branch-2": 4, "branch-3": 4, "classifier": 5}
    assert set(facts["levels by which flat colours move"]) == {"whole", "tiny whole"}
    assert "shares of the classes" in facts["results"]["classifier"]
    assert [branch.settings for branch in config.branches] == [{"expanded": width} for width in (4, 6, 8)]
    assert (config.window, config.step, config.branches[0].blocks) == (16, 12, 4)
    network = load_native(path)
    pairs = Classes(load_recipe(folder / "config.toml"), Budget()).held_out
    tensors = [torch.from_numpy(np.array(lr)).permute(2, 0, 1)[None] / 255 for _, lr in pairs]
    classes = torch.cat([network.classes(network.cut(image)) for image in tensors])
    counts = torch.bincount(classes, minlength=3)
    assert config.shares == pytest.approx((counts / counts.sum()).tolist())
    assert MaskGuidedSR.from_pretrained(path)(torch.rand(1, 3, 20, 24)).shape == (1, 3, 40, 48)


def test_each_step_trains_its_part_only(folder):
    start = begin(folder).network.state_dict()
    before = {name: value.clone() for name, value in start.items()}
    branches = weights(begin(folder).run(("branches",)))
    moved = {".".join(name.split(".")[:2]) for name, value in before.items() if not torch.equal(value, branches[name])}
    assert moved == {"branches.0", "branches.1", "branches.2"}
    after = weights(begin(folder).run(("classifier",)))
    assert {n.partition(".")[0] for n in after if not torch.equal(after[n], branches[n])} == {"classifier"}
    assert all(torch.equal(after[name], value) for name, value in weights(begin(folder).run()).items())


@pytest.mark.parametrize("at", [(2,), (3, 6, 11), (15, 16)])
def test_a_stopped_run_ends_with_the_same_weights(folder, monkeypatch, at):
    once = weights(begin(folder).run())
    steps, original = 0, loop.Schedule.rate

    def stop(*given):
        nonlocal steps
        steps += 1
        if steps in at:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(loop.Schedule, "rate", stop)
    for _ in range(10):
        try:
            path = begin(folder, out=f"'{folder}/again'").run()
            break
        except KeyboardInterrupt:
            continue
    assert steps > max(at)
    assert all(torch.equal(value, once[name]) for name, value in weights(path).items())


def test_a_recipe_that_differs_is_refused(folder):
    begin(folder)
    for name, value in (("average_weight", "5.0"), ("branch__iterations", "7"), ("class_batch", "3")):
        with pytest.raises(InputError, match=f"holds a run with {name.replace('__', '.')} = "):
            begin(folder, **{name: value})
    with pytest.raises(InputError, match="holds a run with branches = "):
        begin(folder, branches="[{ expanded = 4 }, { expanded = 9 }]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branches": "[{ expanded = 4 }]"}, "branches names 1 networks; name two or more"),
        ({"branches": "[{ wide = 4 }, { wide = 5 }]"}, "does not have this setting"),
        ({"crop": "20"}, "crop 20 is not the side of a sub-image, window = 16"),
        ({"step": "17"}, "sub-images of 16 pixels at a step of 17"),
        ({"class_batch": "0"}, "class_batch must be 1 or more"),
        ({"flat_weight": "-1.0"}, "flat_weight 0 or more"),
        ({"start": "middle"}, "start 'middle' does not exist"),
        ({"branch__optimiser": "sgd"}, "branch-1.optimiser 'sgd' does not exist"),
        ({"branch__memory": 1.0}, "branch-1.memory lies between 0 and 1, got 1.0"),
        ({"sees_halo": "true"}, "unknown setting config.sees_halo"),
        ({"recipe": "forest"}, 'config.recipe must be "three-step" or "classes"'),
        ({"network": "rfdn", "start": "identity", "branches": "[{ channels = 8 }, { channels = 12 }]"}, "passes_on"),
    ],
)
def test_what_cannot_be_is_refused(folder, changes, message):
    with pytest.raises(InputError, match=message):
        begin(folder, **changes)


def test_steps_in_the_wrong_order_or_of_other_trainings_are_refused(folder):
    with pytest.raises(InputError, match=r"step classifier goes on from branch-1, of which .* holds no state"):
        begin(folder).run(("classifier",))
    with pytest.raises(InputError, match="classes have no step mask; choose one of branches, classifier"):
        begin(folder).run(("mask",))
    assert main(["train", str(folder / "config.toml"), "--step", "mask"]) == 1
    (folder / "images").mkdir()
    assert (
        main(["ablate", "classes", str(folder / "config.toml"), "-o", "study", "--sets", str(folder / "images")]) == 1
    )


def test_networks_of_other_kinds_can_be_trained(folder):
    settings = {"network": "compact", "start": "default", "branches": "[{ channels = 8 }, { channels = 12 }]"}
    path = begin(folder, **settings, blocks="1", flat_weight="0.0").run()
    assert isinstance(load_native(path), ClassNetwork)


def test_the_easiest_sub_images_come_first(tmp_path):
    rng = np.random.default_rng(0)
    hr = np.full((96, 120, 3), 128, np.uint8)
    hr[:, 60:] = rng.integers(118, 138, (96, 60, 3))  # harder to the right, hardest at the bottom right
    hr[48:, 60:] = rng.integers(0, 256, (48, 60, 3))
    lr = np.ascontiguousarray(hr[::2, ::2])
    parts = by_difficulty([(hr, lr)], 16, 3)
    assert [len(part) for part in parts] == [12, 12, 11], "5 x 7 sub-images, 8 pixels apart"
    errors = [np.mean([one[0].std() for one in part]) for part in parts]
    assert errors[0] < errors[1] < errors[2]
    assert all((one[0] == 128).all() for one in parts[0][:10]), "two columns of five are flat"
    for large, small in (pair for part in parts for pair in part):
        assert large.shape == (32, 32, 3)
        assert np.array_equal(large[::2, ::2], small)
    write_pack(tmp_path / "one.safetensors", [("a", (hr[:32, :32], lr[:16, :16]))], 2)
    with pytest.raises(InputError, match="hold 1 sub-images of 16 pixels, too few for 3 classes"):
        by_difficulty([(hr[:32, :32], lr[:16, :16])], 16, 3)


def test_the_loss_of_the_classifier_is_that_of_classsr():
    torch.manual_seed(0)
    branches = tuple(WholeConfig("fsrcnn", 2, 1, {"expanded": width}) for width in (4, 5, 6))
    network = ClassNetwork(ClassConfig(branches, 16, 12))
    weights = ClassRecipe("fsrcnn", 2, "out", ["x"], image_weight=3.0, class_weight=5.0, average_weight=7.0)
    lr, hr = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        probability = torch.softmax(network.classifier(lr), 1)
        images = [branch(lr) for branch in network.branches]
        image = clear = 0.0
        for crop in range(4):
            mixed = sum(probability[crop, m] * images[m][crop] for m in range(3))
            image += float((mixed - hr[crop]).abs().mean()) / 4
            first, second, third = probability[crop].tolist()
            clear -= (abs(first - second) + abs(first - third) + abs(second - third)) / 4
        even = sum(abs(float(probability[:, m].sum()) - 4 / 3) for m in range(3))
    loss = class_loss(network, lr, hr, weights)
    assert loss.item() == pytest.approx(3 * image + 5 * clear + 7 * even, rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in network.classifier.parameters())
    assert all(p.grad is None for p in network.branches.parameters())


def test_a_log_has_every_step(folder):
    begin(folder, branch__iterations="100", save_every="100", classifier__iterations="1").run(("branches",))
    lines = [json.loads(line) for line in (folder / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == ["branch-1", "branch-2", "branch-3"]
