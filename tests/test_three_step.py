"""The paper's training: schedules, the three steps, exact resume, several processes, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from packs_made import make_pack

from mga.cli import main
from mga.training import loop, objectives, run, three_step
from mga.training.packs import write_pack
from mga.training.recipe import STARTS, Recipe, load_recipe
from mga.training.run import Budget
from mga.training.schedule import Schedule
from mga.training.start import start_passing_on
from mga.training.three_step import ThreeStep
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_model, read_metadata
from mga_kernels.checkpoints.native import find_model
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.interface import Cells
from mga_kernels.networks.layers import consume_halo

pytestmark = pytest.mark.usefixtures("few_colours")
CONFIG = """
network = "fsrcnn"
scale = 2
out = "{folder}/out"
train = ["{folder}/train.safetensors"]
validation = "{folder}/train.safetensors"
crop = 16
batch = 4
save_every = 2
base = {{ iterations = 4, periods = 1, warmup = 1 }}
dense = {{ iterations = 6, periods = 2, warmup = 1, ema_decay = 0.9 }}
all = {{ iterations = 4, periods = 1, warmup = 1 }}
mask = {{ iterations = 4, periods = 1, warmup = 1 }}
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A configuration, and a pack of two smooth pictures."""
    make_pack(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def configure(folder: Path, **overrides: str) -> Recipe:
    config = load_recipe(folder / "config.toml", {name.replace("__", "."): v for name, v in overrides.items()})
    assert isinstance(config, Recipe)
    return config


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_the_pace_is_measured_without_training():
    network = torch.nn.Linear(3, 1)
    before = [p.clone() for p in network.parameters()]
    assert loop.pace_of(network, lambda step: network(torch.ones(2, 3)).square().mean(), 4) > 0
    for parameter, kept in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)
        assert parameter.grad is None


def test_the_schedule_is_the_papers_and_scales():
    rate = {
        step: loop.Schedule(600_000, 3, 2_000, 4e-5, 4e-4, 1e-7).rate(step)
        for step in (0, 1_000, 2_000, 199_999, 200_000, 202_000, 599_999)
    }
    expected = {0: 4e-5, 1_000: 2.2e-4, 2_000: 4e-4, 199_999: 1e-7, 200_000: 4e-5, 202_000: 4e-4, 599_999: 1e-7}
    assert rate == pytest.approx(expected, rel=1e-3)
    assert Schedule() == Schedule(600_000, 3, 2_000, 4e-5, 4e-4, 1e-7)
    assert Recipe("fsrcnn", 4, "out", ["x"]).mask.iterations == 100_000
    assert Schedule().scaled(300_000) == Schedule(300_000, 3, 1_000)
    assert Schedule().scaled(30_000) == Schedule(30_000, 1, 300)


def test_budgets():
    assert Budget.parse("20000") == Budget(iterations=20000)
    assert Budget.parse("90m") == Budget(minutes=90)
    assert Budget.parse("1.5h") == Budget(minutes=90)
    for text in ("", "x", "-3", "0", "0m", "1d"):
        with pytest.raises(InputError, match="--budget takes"):
            Budget.parse(text)


@pytest.mark.parametrize("network", ["fsrcnn", "pan"])
def test_the_steps_run_the_variants_of_the_network(network):
    """The images in the losses are those of the network's own variants."""
    torch.manual_seed(0)
    model = MaskGuidedNetwork(ModelConfig(network, 2, split=(1, 1))).eval()
    lr, hr = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        coarse, feature = model.coarse(lr)
        images = {"base": coarse, "dense": model.decomposed(feature), "all": objectives.every_patch(model, feature)}
        for variant, name in (("base", "base"), ("decomposed", "dense"), ("all", "all")):
            assert torch.equal(model(lr, variant=variant), images[name].clamp(0, 1)), name
            loss = objectives.image_loss(model, lr, hr, name, 0.5)
            expected = (images[name] - hr).abs().mean()
            if name != "base":
                expected = expected + 0.5 * (coarse - hr).abs().mean()
            assert loss == pytest.approx(expected.item(), rel=1e-5)
        difference = (images["all"] - coarse).abs()
        one_channel = objectives.differences(model, coarse, coarse + 0.1)
        assert one_channel == pytest.approx(0.1 * 219 / 255, rel=1e-3), "luma of studio range"
        assert (objectives.differences(model, coarse, images["all"]) <= difference.amax()).all()


def test_the_mask_is_trained_against_the_difference_of_the_images():
    torch.manual_seed(0)
    model = MaskGuidedNetwork(ModelConfig("fsrcnn", 2)).eval()
    lr = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        coarse, feature = model.coarse(lr)
        target = objectives.differences(model, coarse, objectives.every_patch(model, feature))
        expected = (model.mask(feature / 2) - (target / 0.01).clamp(max=1)).abs().mean()
    loss = objectives.mask_loss(model, lr, 0.01, torch.tensor(2.0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in model.mask.parameters())
    assert all(p.grad is None for p in model.base.parameters())


def test_without_supervision_the_loss_is_that_of_the_masked_network():
    torch.manual_seed(0)
    model = MaskGuidedNetwork(ModelConfig("fsrcnn", 2)).eval()
    lr, hr = torch.rand(1, 3, 16, 20), torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        masked = model.unclamped(lr, cells=Cells(round(objectives.SELECTED_SHARE * 20)))
    loss = objectives.gated_loss(model, lr, hr, 0.0, torch.ones(()))
    assert loss.item() == pytest.approx(float((masked - hr).abs().mean()), rel=1e-5)
    probed = torch.linspace(1, 0.1, 20).reshape(1, 4, 5).requires_grad_()
    model.mask.forward = lambda feature: probed
    objectives.gated_loss(model, lr, hr, 0.0, torch.ones(())).backward()
    with torch.no_grad():
        coarse, feature = model.coarse(lr)
        gain = (hr - coarse).sign() * (objectives.every_patch(model, feature) - coarse)
    unchosen = slice(8, None)
    expected = -gain.unfold(2, 8, 8).unfold(3, 8, 8).sum(dim=(1, 4, 5)).flatten() / hr.numel()
    torch.testing.assert_close(probed.grad.flatten()[unchosen], expected[unchosen], rtol=1e-4, atol=1e-7)


def test_without_supervision_the_final_image_alone_trains_the_mask():
    torch.manual_seed(0)
    model = MaskGuidedNetwork(ModelConfig("fsrcnn", 2)).eval()
    lr, hr = torch.rand(1, 3, 16, 24), torch.rand(1, 3, 32, 48)
    model.base.requires_grad_(False)
    model.refine.requires_grad_(False)
    objectives.gated_loss(model, lr, hr, 0.0, torch.ones(())).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model.mask.parameters() if p.grad is not None)
    assert model.mask.conv2.weight.grad is not None


def test_a_whole_run_gives_a_model_that_says_how_it_was_made(run_folder, capsys):
    assert main(["train", str(run_folder / "config.toml"), "--budget", "14"]) == 0
    path = run_folder / "out/fsrcnn-x2.safetensors"
    printed = capsys.readouterr().out
    assert f"written: {path}" in printed
    assert "125 flat colours move by at most" in printed
    facts = read_metadata(path)["training"]
    assert set(facts["levels by which flat colours move"]) == {"coarse", "all", "tiny coarse", "tiny all"}
    assert facts["iterations"] == {"dense": 6, "all": 4, "mask": 4}
    assert facts["settings"]["train"] == ["train.safetensors"]
    assert set(facts["results"]) == {"dense", "all", "mask"}
    assert "top 40 % overlap" in facts["results"]["mask"]
    assert 0 < facts["mask_unit"] < 1
    assert MaskGuidedSR.from_pretrained(path, k=3)(torch.rand(1, 3, 20, 24)).shape == (1, 3, 40, 48)
    lines = (run_folder / "out/log.jsonl").exists()
    assert not lines, "a line each hundred iterations"


def test_each_step_trains_its_part_only(run_folder):
    torch.manual_seed(0)
    start = MaskGuidedNetwork(ModelConfig("fsrcnn", 2)).state_dict()
    trained = weights(ThreeStep(configure(run_folder), Budget()).run(("dense",)))
    changed = {name.partition(".")[0] for name, value in start.items() if not torch.equal(value, trained[name])}
    assert changed == {"base", "refine"}
    both = weights(ThreeStep(configure(run_folder), Budget()).run(("dense", "mask")))
    changed = {name.partition(".")[0] for name, value in trained.items() if not torch.equal(value, both[name])}
    assert changed == {"mask"}
    base = weights(ThreeStep(configure(run_folder, out=f"'{run_folder}/b'"), Budget()).run(("base",)))
    changed = {name.partition(".")[0] for name, value in start.items() if not torch.equal(value, base[name])}
    assert changed == {"base"}


@pytest.mark.parametrize("setting", ["colours", "flat_weight", "teacher"])
def test_what_keeps_colours_is_part_of_the_training(run_folder, setting):
    teacher = find_model("fsrcnn-x2")
    value = {"colours": "1.0", "flat_weight": "0.5", "teacher": f"'{teacher}'"}[setting]
    without = weights(ThreeStep(configure(run_folder), Budget(iterations=1)).run(("base",)))
    recipe = configure(run_folder, out=f"'{run_folder}/with'", **{setting: value})
    trained = weights(ThreeStep(recipe, Budget(iterations=1)).run(("base",)))
    assert not all(torch.equal(value, without[name]) for name, value in trained.items())


def test_one_step_at_a_time_ends_with_the_weights_of_one_run(run_folder):
    once = weights(ThreeStep(configure(run_folder), Budget()).run())
    apart = {"out": f"'{run_folder}/apart'"}
    with pytest.raises(InputError, match=r"step mask goes on from step dense, of which .* holds no state"):
        ThreeStep(configure(run_folder, **apart), Budget()).run(("mask",))
    for step in ("dense", "all", "mask"):
        path = ThreeStep(configure(run_folder, **apart), Budget()).run((step,))
    assert all(torch.equal(value, once[name]) for name, value in weights(path).items())
    first = ThreeStep(configure(run_folder, out=f"'{run_folder}/other'", initial=f"'{path}'"), Budget())
    assert first._before("mask") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "three-step"},
        {"strategy": "end-to-end"},
        {"strategy": "unsupervised-mask"},
        {f"{step}__optimiser": "soap" for step in ("dense", "all", "mask")},
    ],
    ids=["three-step", "end-to-end", "unsupervised-mask", "soap"],
)
def test_a_stopped_run_ends_with_the_same_weights(run_folder, monkeypatch, settings):
    if "strategy" not in settings:
        pytest.importorskip("pytorch_optimizer")
    once = weights(ThreeStep(configure(run_folder, **settings), Budget()).run())
    steps = 0

    def stop(*_, **__):
        nonlocal steps
        steps += 1
        if steps in (3, 6, 11):
            raise KeyboardInterrupt
        return original(*_, **__)

    original = loop.Schedule.rate
    monkeypatch.setattr(loop.Schedule, "rate", stop)
    recipe = configure(run_folder, **settings, out=f"'{run_folder}/again'")
    for _ in range(10):
        try:
            path = ThreeStep(recipe, Budget()).run()
            break
        except KeyboardInterrupt:
            continue
    assert steps > 4
    assert_same(once, weights(path))


def test_from_the_identity_the_mapping_layers_pass_their_input_on():
    network = MaskGuidedNetwork(ModelConfig("fsrcnn", 2))
    start_passing_on(network)
    feature = torch.randn(2, 12, 10, 10)
    base, refine = network.base, network.refine
    assert torch.equal(base.mid_part[2:](feature), feature)
    assert torch.equal(refine.mid_part(feature), feature)
    inner = feature[..., 2:-2, 2:-2]
    passed = consume_halo(feature, refine.conv1, refine.conv2)[..., 1:-1, 1:-1]
    assert torch.equal(passed, torch.where(inner > 0, inner, 0.1 * inner))
    image = torch.rand(1, 3, 40, 40)
    shrunk = base.mid_part[:2](base.first_part(image)).detach()
    assert 0.05 < float(shrunk.std() / image.std()) < 20  # neither fades nor explodes
    assert float(base(image)[0].detach().abs().max()) < 0.1


def test_soap_goes_further_than_adam_in_as_many_iterations(run_folder):
    pytest.importorskip("pytorch_optimizer")
    errors = {}
    for name, rate in (("adam", "2e-3"), ("soap", "1e-2")):
        step = f"{{ iterations = 60, periods = 1, warmup = 2, learning_rate = {rate}, optimiser = '{name}' }}"
        run = ThreeStep(configure(run_folder, start="identity", base=step, out=str(run_folder / name)), Budget())
        run.run(("base",))
        lr, hr = run.crops.make(999)
        errors[name] = float((run.network.base(lr)[0] - hr).abs().mean())
    assert errors["soap"] < 0.9 * errors["adam"]


def test_without_its_package_soap_is_refused(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(InputError, match="needs the package pytorch-optimizer"):
        ThreeStep(configure(run_folder, base__optimiser="soap"), Budget()).run(("base",))


def test_packs_are_drawn_from_equally_often(run_folder):
    image = np.zeros((32, 32, 3), np.uint8)
    write_pack(run_folder / "dark.safetensors", [("a", (image, image[::2, ::2]))], 2)
    packs = [str(run_folder / name) for name in ("train.safetensors", "dark.safetensors")]
    run = ThreeStep(configure(run_folder, train=str(packs), batch="32"), Budget())
    dark = sum(int(float(crop.max()) == 0) for number in range(4) for crop in run.crops.make(number)[0])
    assert 0.35 < dark / 128 < 0.65


def test_the_start_is_part_of_the_recipe(run_folder):
    default, identity = (ThreeStep(configure(run_folder, out=str(run_folder / s), start=s), Budget()) for s in STARTS)
    assert not torch.equal(default.network.refine.conv1.weight, identity.network.refine.conv1.weight)
    with pytest.raises(InputError, match="such as fsrcnn; pan is not said to be one"):
        ThreeStep(configure(run_folder, out=str(run_folder / "pan"), start="identity", network="pan"), Budget())


def test_half_a_line_in_the_log_does_not_spoil_the_next(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": "dense", "iteration": 100}\n{"step": "den')
    log = run.Log(tmp_path, "all", tensorboard=False)
    log.write(100, {"loss": 0.5})
    log.write(200, {"loss": 0.25})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines[2:]] == [0.5, 0.25]


def test_the_log_in_short_is_kept_with_the_weights(tmp_path):
    assert run.logged_losses(tmp_path) == {}
    log = run.Log(tmp_path, "dense", tensorboard=False)
    for number in range(1, 21):
        log.write(100 * number, {"loss": 1.0 if number == 20 else 0.5})
    with log.path.open("a") as stream:
        stream.write('{"step": "de')
    log.write(2000, {"loss": 0.25})  # once more, by the run that goes on
    run.Log(tmp_path, "mask", tensorboard=False).write(100, {"loss": 0.125})
    assert run.logged_losses(tmp_path) == {"dense": [0.5] * 9 + [0.375], "mask": [0.125]}


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_state(run_folder, monkeypatch):
    original = three_step.image_loss
    calls = 0

    def fails(*arguments):
        nonlocal calls
        calls += 1
        return original(*arguments) * (float("nan") if calls == 4 else 1.0)

    monkeypatch.setattr(three_step, "image_loss", fails)
    with pytest.raises(loop.TrainingError, match=r"loss of step dense became nan at iteration 3; lower dense"):
        ThreeStep(configure(run_folder), Budget()).run()
    assert torch.load(run_folder / "out/dense.state", weights_only=True)["step"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": "[]"}, "config.train is empty"),
        ({"strategy": "'magic'"}, "choose one of three-step"),
        ({"crop": "10"}, "multiple of p = 4"),
        ({"crop": "64"}, "less than crop = 64"),
        ({"batch": "0"}, "batch must be 1 or more"),
        ({"scale": "4"}, "holds pairs of scale 2"),
        ({"recipe": "'none'"}, "config.recipe must be"),
        ({"base__optimiser": "sgd"}, "base.optimiser 'sgd' does not exist; choose one of adam, soap"),
        ({"dense__speed": "1"}, r"unknown setting config\.dense\.speed"),
        ({"train": "['missing']"}, "there is no pack missing"),
    ],
)
def test_wrong_configurations_are_refused(run_folder, overrides, message):
    with pytest.raises(InputError, match=message):
        ThreeStep(configure(run_folder, **overrides), Budget())


def test_a_full_disk_ends_in_a_sentence(run_folder, full_disk):
    training = ThreeStep(configure(run_folder), Budget())
    full_disk(5_000)
    with pytest.raises(loop.TrainingError, match=r"cannot write .*dense.state: No space left on device"):
        training.run()
