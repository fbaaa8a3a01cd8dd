"""mga ablate: what is shared, what differs, equal budgets, going on, and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pictures import save_smooth_picture
from tiny_model import write_tiny_model

from mga.cli import main
from mga.evaluation.folder import evaluate
from mga.evaluation.testsets import find_pairs
from mga.training import three_step
from mga_kernels.checkpoints import load_model, read_metadata
from mga_kernels.engine.model import MaskGuidedSR

pytestmark = pytest.mark.usefixtures("few_colours")
CONFIG = """
network = "fsrcnn"
scale = 2
out = "{folder}/unused"
train = ["{folder}/train.safetensors"]
crop = 16
batch = 2
base = {{ iterations = 3, periods = 1, warmup = 1 }}
dense = {{ iterations = 3, periods = 1, warmup = 1 }}
all = {{ iterations = 3, periods = 1, warmup = 1 }}
mask = {{ iterations = 2, periods = 1, warmup = 1 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablate")
    (folder / "sets/One").mkdir(parents=True)
    for i in range(2):
        save_smooth_picture(folder / f"sets/One/{i}.png", 48, 64, i)
    pack = str(folder / "train.safetensors")
    assert main(["prepare", str(folder / "sets/One"), "-o", pack, "--scale", "2"]) == 0
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than these networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ablate(folder: Path, study: str, out: Path, *words: str, config: object = None) -> list[dict]:
    command = ["ablate", study, config or folder / "config.toml", "-o", out, "--sets", folder / "sets", *words]
    assert main([str(word) for word in command]) == 0
    assert (out / f"{study}.md").read_text().startswith("# ")
    return json.loads((out / f"{study}.json").read_text())["rows"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).state_dict()


def same(a: Path, b: Path, part: str) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items() if name.startswith(part))


def test_classes_differ_in_nothing_but_the_mask(folder, tmp_path):
    rows = ablate(folder, "classes", tmp_path, "--k", "5", "--base")
    assert [(row["model"], row["variant"], row["k"]) for row in rows] == [
        ("fsrcnn", "base", None),
        ("fsrcnn", "decomposed", None),
        ("fsrcnn (1C)", "masked", 5),
        ("fsrcnn (2C)", "masked", 5),
    ]
    one, two = (tmp_path / f"classes-{value}/fsrcnn-x2.safetensors" for value in "12")
    assert [load_model(path).mask.conv2.out_channels for path in (one, two)] == [1, 2]
    for part in ("base.", "refine."):
        assert same(one, two, part)
        assert not same(one, tmp_path / "shared/d-net.safetensors", part), "the weights of step 1 are those of -D"
    expected = evaluate(MaskGuidedSR.from_pretrained(one, k=5), find_pairs(folder / "sets/One", None, 2))
    assert rows[2]["sets"]["One"]["psnr_y"] == pytest.approx(expected["mean"]["psnr_y"])
    assert rows[2]["sets"]["One"]["mask"]["unit_from"] == "training"
    assert read_metadata(one)["training"]["mask_unit"] == pytest.approx(read_metadata(two)["training"]["mask_unit"])


def test_strategies_have_the_same_iterations(folder, tmp_path, monkeypatch):
    gated, original = [], three_step.gated_loss
    monkeypatch.setattr(three_step, "gated_loss", lambda *args: gated.append(1) or original(*args))
    rows = ablate(folder, "strategy", tmp_path, "--budget", "16")
    assert [row["model"] for row in rows[1:]] == [
        f"fsrcnn ({s})" for s in ("three-step", "end-to-end", "unsupervised-mask")
    ]
    shared = json.loads((tmp_path / "shared/iterations.json").read_text())
    spent = {
        name: json.loads((tmp_path / f"strategy-{name}/iterations.json").read_text())
        for name in ("three-step", "end-to-end", "unsupervised-mask")
    }
    assert shared == {"dense": 6, "all": 6}
    assert spent == {"three-step": {"mask": 4}, "unsupervised-mask": {"mask": 4}, "end-to-end": {"end-to-end": 16}}
    assert len(gated) == 16 + 4
    supervised, free = (tmp_path / f"strategy-{n}/fsrcnn-x2.safetensors" for n in ("three-step", "unsupervised-mask"))
    assert same(supervised, free, "base.")
    assert not same(supervised, free, "mask.")


def test_a_study_without_a_budget_gives_end_to_end_all_iterations(folder, tmp_path):
    ablate(folder, "strategy", tmp_path, "--values", "end-to-end")
    assert json.loads((tmp_path / "strategy-end-to-end/iterations.json").read_text()) == {"end-to-end": 3 + 3 + 2}


def test_a_stopped_study_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    once = ablate(folder, "patch-size", tmp_path / "once", "--values", "2", "8")
    calls, original = 0, three_step.image_loss

    def stops(*arguments):
        nonlocal calls
        calls += 1
        if calls == 8:  # in step 2 of the second value, whose states are written at its end
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(three_step, "image_loss", stops)
    command = ["ablate", "patch-size", folder / "config.toml", "-o", tmp_path / "again", "--sets", folder / "sets"]
    assert main([*map(str, command), "--values", "2", "8"]) == 130
    again = ablate(folder, "patch-size", tmp_path / "again", "--values", "2", "8")
    assert calls == 8 + 3, "finished steps are not trained again"
    for a, b in zip(once, again, strict=True):
        assert a["sets"]["One"]["images"] == b["sets"]["One"]["images"]
    assert [load_model(tmp_path / f"again/patch-size-{p}/fsrcnn-x2.safetensors").config.patch_size for p in (2, 8)] == [
        2,
        8,
    ]


def test_splits_are_trained_apart(folder, tmp_path):
    rows = ablate(folder, "split", tmp_path, "--values", "1+2", "2+1", "--base")
    assert [(row["model"], row["variant"], row["split"]) for row in rows] == [
        ("fsrcnn 1+2", "base", "1+2"),
        ("fsrcnn 2+1", "base", "2+1"),
        ("fsrcnn (1+2)", "masked", "1+2"),
        ("fsrcnn (2+1)", "masked", "2+1"),
    ]
    assert rows[2]["params"] != rows[3]["params"] or rows[2]["gmacs"] != rows[3]["gmacs"]


def test_selection_and_k_run_one_model(folder, tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors", k=6)
    rows = ablate(folder, "selection", tmp_path / "order", config=model)
    assert [(row["k"], row["fraction"], row["selection"]) for row in rows] == [
        (0, None, "largest"),
        *((6, None, order) for order in ("smallest", "random", "largest")),
        *((None, 0.5, order) for order in ("smallest", "random", "largest")),
        (None, 1.0, "largest"),
    ]
    pairs = find_pairs(folder / "sets/One", None, 2)
    for row, (variant, order, share) in zip(
        (rows[0], rows[1], rows[5], rows[7]),
        (
            ("base", None, {}),
            ("masked", "smallest", {"k": 6}),
            ("masked", "random", {"fraction": 0.5}),
            ("all", None, {}),
        ),
        strict=True,
    ):
        expected = evaluate(MaskGuidedSR.from_pretrained(model, **share), pairs, variant, order)["mean"]
        assert row["sets"]["One"]["psnr_y"] == pytest.approx(expected["psnr_y"])
    rows = ablate(folder, "k", tmp_path / "k", "--values", "0", "3", "25%", config=model)
    assert [(row["k"], row["fraction"]) for row in rows] == [(0, None), (3, None), (None, 0.25)]


def test_what_is_refused(folder, tmp_path, capsys):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    config = str(folder / "config.toml")
    for words, message in (
        (["selection", str(model), "--budget", "5"], "--budget is for studies that train"),
        (["k", str(model), "--set", "seed=1"], "--set is for studies that train"),
        (["selection", str(model), "--values", "best"], "the order 'best' does not exist"),
        (["k", str(model), "--k", "3"], "the values of K are --values"),
        (["classes", config, "--values", "3"], "classes=3 is not a mask module"),
        (["classes", config, "--values", "two"], "classes is a number"),
        (["strategy", config, "--values", "magic"], "strategy 'magic' does not exist"),
        (["split", config, "--values", "4"], "split must be the blocks"),
        (["patch-size", config, "--values", "2", "2"], "given twice"),
        (["classes", config, "--only", "Set5"], "holds no test set Set5, only One"),
        (["classes", str(tmp_path / "none.toml")], "there is no configuration file"),
        (["classes", config, "--set", "recipe='refine-only'"], '"refine-only" is no more'),
    ):
        code = main(["ablate", *words, "-o", str(tmp_path / "out"), "--sets", str(folder / "sets")])
        error = capsys.readouterr().err
        assert code == 1, error
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists(), "nothing was begun"
