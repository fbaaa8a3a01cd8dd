"""A training goes on only as what it began as: recipe, packs, first weights, budget. Each process has its own GPU."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mga.cli import main
from mga.files import claim
from mga.training import loop, workers
from mga.training.packs import write_pack
from mga.training.recipe import Recipe, load_recipe
from mga.training.run import FREE, Budget
from mga.training.three_step import ThreeStep
from mga_kernels.checkpoints import load_model, save_model
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

pytestmark = pytest.mark.usefixtures("few_colours")
CONFIG = """
network = "fsrcnn"
scale = 2
out = "{folder}/out"
train = ["{folder}/train.safetensors"]
validation = "{folder}/validation.safetensors"
initial = "{folder}/initial.safetensors"
crop = 16
batch = 2
save_every = 2
base = {{ iterations = 2, periods = 1, warmup = 1 }}
dense = {{ iterations = 3, periods = 1, warmup = 1 }}
all = {{ iterations = 2, periods = 1, warmup = 1 }}
mask = {{ iterations = 2, periods = 1, warmup = 1 }}
"""


def make_pack(path: Path, seed: int) -> Path:
    hr = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write_pack(path, [("a", (hr, hr[::2, ::2]))], 2)
    return path


def make_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_model(path, MaskGuidedNetwork(ModelConfig("fsrcnn", 2)), {}, {})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pack(tmp_path / "train.safetensors", 0)
    make_pack(tmp_path / "validation.safetensors", 1)
    make_weights(tmp_path / "initial.safetensors", 0)
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def begin(folder: Path, budget: str = "", **overrides: str) -> ThreeStep:
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    recipe = load_recipe(folder / "config.toml", names)
    return ThreeStep(recipe, Budget.parse(budget) if budget else Budget())


DIFFERING = {
    "seed": "1",
    "batch": "4",
    "crop": "24",
    "coarse_weight": "0.5",
    "target_quantile": "0.9",
    "bf16": "true",
    "strategy": "end-to-end",
    "start": "identity",
    "selection": "smallest",
    "k": "7",
    "base__iterations": "3",
    "base__periods": "2",
    "dense__warmup": "2",
    "dense__warmup_start": "1e-3",
    "dense__learning_rate": "5e-2",
    "all__final_learning_rate": "1e-3",
    "mask__optimiser": "soap",
    "mask__ema_decay": "0.5",
}


@pytest.mark.parametrize("name", DIFFERING)
def test_a_recipe_that_differs_in_anything_is_refused(folder, name):
    recipe = begin(folder).recipe
    before = (folder / "out/recipe.json").read_bytes()
    field = name.replace("__", ".")
    old = claim.flat(dataclasses.asdict(recipe))[field]
    with pytest.raises(InputError) as refused:
        begin(folder, **{name: DIFFERING[name]})
    new = claim.flat(dataclasses.asdict(load_recipe(folder / "config.toml", {field: DIFFERING[name]})))[field]
    assert f"out holds a run with {field} = {old}, this one has {new}; change config.out" in str(refused.value)
    assert (folder / "out/recipe.json").read_bytes() == before
    begin(folder)


def test_every_setting_of_a_recipe_is_noted(folder):
    """Those to come, too, unless they are named among the few that cannot change what is trained."""
    noted = set(begin(folder)._claimed())
    whole = dataclasses.asdict(Recipe("fsrcnn", 2, "out", ["x"]))
    free = {name for name in claim.flat(whole) if name.partition(".")[0] in FREE}
    assert noted == set(claim.flat(whole)) - free | {"budget"}
    assert set(FREE) == {"out", "device", "save_every", "tensorboard", "licence"}


def test_what_cannot_change_the_result_may_differ(folder):
    begin(folder)
    begin(folder, save_every="7", device="cpu", tensorboard="true", licence="{ weights = 'CC0' }")


@pytest.mark.parametrize("name", ["train", "validation", "initial"])
def test_files_count_by_their_content(folder, name):
    begin(folder)
    path = folder / f"{name}.safetensors"
    path.rename(folder / "moved.safetensors")
    moved = str([str(folder / "moved.safetensors")] if name == "train" else folder / "moved.safetensors")
    begin(folder, **{name: moved})
    if name == "initial":
        make_weights(path, 1)
    else:
        make_pack(path, 2)
    with pytest.raises(InputError, match=f"holds a run with {name} = .*, this one has"):
        begin(folder)
    with pytest.raises(InputError, match=f"holds a run with {name} = .*, this one has"):
        begin(folder, **{name: str([str(folder / "moved.safetensors")] * 2) if name == "train" else ""})
    shutil.copy(folder / "moved.safetensors", path)
    begin(folder)


def test_the_same_weights_written_again_are_the_same(folder):
    begin(folder)
    path = folder / "initial.safetensors"
    save_model(path, load_model(path), {"weights": "CC0"}, {"finished": "another day"})
    begin(folder)


def test_the_budget_is_a_part_of_the_run(folder):
    begin(folder, "14")
    begin(folder, "14")
    for other, text in (("", "none"), ("15", "15 iterations"), ("90m", "90 minutes")):
        with pytest.raises(InputError, match=f"holds a run with budget = 14 iterations, this one has {text}; change"):
            begin(folder, other)


def test_weights_that_a_study_goes_on_from_count_too(folder):
    recipe = load_recipe(folder / "config.toml", {"initial": ""})
    halves = [make_weights(folder / f"{seed}.safetensors", seed) for seed in (3, 4)]
    ThreeStep(recipe, Budget(), halves[0])
    ThreeStep(recipe, Budget(), halves[0])
    for other in (halves[1], None):
        with pytest.raises(InputError, match="holds a run with initial = "):
            ThreeStep(recipe, Budget(), other)


def test_another_training_in_the_folder_changes_nothing(folder, capsys):
    """Other packs, fifty times the rate and as many iterations: nothing was trained, and the weights said it was."""
    command = ["train", str(folder / "config.toml")]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    assert "fsrcnn-x2.safetensors" in {path.name for path in before}
    other = make_pack(folder / "b.safetensors", 5)
    capsys.readouterr()
    words = [f"train=['{other}']", "dense.iterations=50", "all.iterations=50", "dense.learning_rate=5e-2"]
    assert main([*command, *(word for text in words for word in ("--set", text))]) == 1
    error = capsys.readouterr().err
    assert "train = [" in error
    assert "dense.iterations = 3, this one has 50" in error
    assert "dense.learning_rate = 0.0004, this one has 0.05; 1 more differ; change config.out" in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_two_runs_do_not_train_in_one_folder(folder, capsys, monkeypatch):
    """They would write over each other's states: the second one is told so, and the first goes on."""
    command, ended, real = ["train", str(folder / "config.toml")], [], loop.save_state

    def meanwhile(*arguments):
        if not ended:
            ended.append((main(command), capsys.readouterr().err))
        return real(*arguments)

    monkeypatch.setattr(loop, "save_state", meanwhile)
    assert main(command) == 0
    remedy = "wait until it has ended, or change config.out (of a study, -o)"
    assert ended == [(1, f"mga: train: another run is training in {folder}/out; {remedy}\n")]
    assert (folder / "out/fsrcnn-x2.safetensors").is_file()
    assert main(command) == 0, "nothing holds the folder any more"


def test_a_folder_of_the_code_before_is_refused_until_its_record_is_removed(folder):
    begin(folder).run(("dense",))
    record = folder / "out/recipe.json"
    record.write_text(json.dumps({"network": "fsrcnn", "scale": 2, "split": "", "crop": 16, "batch": 2, "seed": 0}))
    with pytest.raises(
        InputError, match=r"older version, which noted only a part .* remove recipe.json there to go on"
    ):
        begin(folder)
    record.unlink()
    assert begin(folder)._before("all") == ["dense"]
    begin(folder)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"format": 2', "\\0"])
def test_a_record_that_cannot_be_read_is_a_sentence(folder, content):
    (folder / "out").mkdir()
    (folder / "out/recipe.json").write_text(content)
    with pytest.raises(InputError, match=r"recipe.json cannot be read \(.*\); change config.out"):
        begin(folder)
    assert (folder / "out/recipe.json").read_text() == content


@pytest.mark.parametrize("content", [b"", b"no state", None], ids=["empty", "text", "another"])
def test_a_state_that_cannot_be_read_is_a_sentence(folder, content):
    begin(folder).run(("dense",))
    path = folder / "out/dense.state"
    if content is None:
        torch.save({"step": 3, "module": {}, "optimiser": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(loop.TrainingError, match=r"dense.state is no state that this step can go on from .* remove it"):
        begin(folder).run(("dense",))


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, as far as choosing one goes; returns those that were made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return current


def start(monkeypatch, **environment: int) -> None:
    """As torchrun does."""
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(("rank", "local"), [(0, 0), (1, 1), (3, 1)])
def test_each_process_has_a_gpu_of_its_own(gpus, monkeypatch, wanted, rank, local):
    start(monkeypatch, RANK=rank, LOCAL_RANK=local, WORLD_SIZE=4, LOCAL_WORLD_SIZE=2)
    assert workers.device_of(wanted) == torch.device("cuda", local)
    assert gpus == [local]


def test_without_torchrun_the_rank_is_that_on_this_machine(gpus, monkeypatch):
    start(monkeypatch, RANK=1, WORLD_SIZE=2)
    assert workers.device_of("auto") == torch.device("cuda", 1)


def test_processes_that_cannot_have_a_gpu_each_are_refused(gpus, monkeypatch):
    start(monkeypatch, RANK=2, LOCAL_RANK=2, WORLD_SIZE=3, LOCAL_WORLD_SIZE=3)
    with pytest.raises(InputError, match="there are 3 processes and 2 GPUs; start one process for each GPU"):
        workers.device_of("auto")
    with pytest.raises(InputError, match='device = "cuda:1" is one GPU for 3 processes; set "cuda"'):
        workers.device_of("cuda:1")
    assert workers.device_of("cpu") == torch.device("cpu")
    assert gpus == []


def test_one_process_takes_the_device_that_it_is_given(gpus, monkeypatch):
    assert [str(workers.device_of(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    start(monkeypatch, RANK=1, LOCAL_RANK=0, WORLD_SIZE=2, LOCAL_WORLD_SIZE=1)  # two machines
    assert str(workers.device_of("cuda:1")) == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(workers.device_of("auto")) == "cpu"
    with pytest.raises(InputError, match="device 'gpu' does not exist; choose auto, cpu, cuda or cuda:N"):
        workers.device_of("gpu")
