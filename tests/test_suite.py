"""mga evaluate over many sets, models, variants and K: figures, costs, masks, resuming, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import originals
import pytest
import torch
from PIL import Image
from tiny_model import write_tiny_model

from mga.cli import main
from mga.complexity import NetworkCosts
from mga.evaluation import masks
from mga.evaluation.folder import evaluate
from mga.evaluation.masks import differences, every_patch
from mga.evaluation.metrics import psnr_rgb, psnr_y
from mga.evaluation.resize import imresize
from mga.evaluation.suite import runners
from mga.evaluation.suite.config import Suite, load_suite
from mga.evaluation.suite.table import rows_of
from mga.evaluation.testsets import find_pairs, load_pair
from mga.settings.values import amount
from mga.training.recipe import load_recipe
from mga_kernels.checkpoints import load_model, save_model
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.engine.pictures import to_tensor, to_uint8
from mga_kernels.errors import InputError

CONFIGS = Path(__file__).parent.parent / "configs"
SUITE = """
scale = 2
folders = ["{folder}/sets"]
variants = ["base", "masked"]
k = [4, "50%"]
size = "64x48"
[[models]]
name = "tiny"
file = "{folder}/tiny.safetensors"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    for name, sizes in {"One": [(40, 36), (37, 45)], "Two": [(32, 32)]}.items():
        (folder / "sets" / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            coarse = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
            picture.save(folder / f"sets/{name}/im{i}.png")
    write_tiny_model(folder / "tiny.safetensors")
    (folder / "suite.toml").write_text(SUITE.format(folder=folder))
    return folder


def run(folder: Path, target: Path, *arguments: object) -> list[dict]:
    command = ["evaluate", folder / "suite.toml", "--json", target, *arguments]
    assert main([str(word) for word in command]) == 0
    return json.loads(target.read_text())["rows"]


def test_figures_are_those_of_one_set_at_a_time(folder, tmp_path, capsys):
    rows = run(folder, tmp_path / "rows.json", "-o", tmp_path / "table.md")
    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.endswith(table)
    assert [(row["model"], row["variant"], row["k"], row["fraction"]) for row in rows] == [
        ("bicubic", "base", None, None),
        ("tiny", "base", None, None),
        ("tiny", "masked", 4, None),
        ("tiny", "masked", None, 0.5),
    ]
    costs = NetworkCosts(load_model(folder / "tiny.safetensors").config)
    for row, share in zip(rows[1:], ({}, {"k": 4}, {"fraction": 0.5}), strict=True):
        model = MaskGuidedSR.from_pretrained(folder / "tiny.safetensors", **share)
        for name in ("One", "Two"):
            expected = evaluate(model, find_pairs(folder / "sets" / name, None, 2), row["variant"])
            figures = row["sets"][name]
            for metric in ("psnr_y", "ssim_y"):
                assert figures[metric] == pytest.approx(expected["mean"][metric])
                assert [i[metric] for i in figures["images"]] == [i[metric] for i in expected["images"]]
            assert f"{figures['psnr_y']:.3f} / {figures['ssim_y']:.4f} / {figures['psnr_rgb']:.3f}" in table
            sizes = [(18, 20), (22, 18)] if name == "One" else [(16, 16)]
            counts = [model.resolve_k(height, width) for width, height in sizes]
            macs = [costs.cost(row["variant"], *size, k).macs for size, k in zip(sizes, counts, strict=True)]
            assert figures["gmacs"] == pytest.approx(np.mean(macs) / 1e9)
            assert figures["lr"] == "bicubic"
        k = model.resolve_k(24, 32)
        assert row["gmacs"] == pytest.approx(costs.cost(row["variant"], 32, 24, k).macs / 1e9)
        assert row["params"] == costs.parameters(row["variant"])
        assert row["seconds"] > 0


def test_bicubic_and_rgb(folder, tmp_path):
    bicubic = run(folder, tmp_path / "rows.json")[0]["sets"]["One"]["images"]
    for entry in bicubic:
        hr, lr = load_pair(folder / f"sets/One/{entry['name']}.png", None, 2)
        assert entry["psnr_y"] == pytest.approx(psnr_y(imresize(lr, 2), hr, 2))
        assert entry["psnr_rgb"] == pytest.approx(psnr_rgb(imresize(lr, 2), hr, 2))


def test_rows_that_are_there_are_not_measured_again(folder, tmp_path, monkeypatch):
    target, measured, stops = tmp_path / "rows.json", [], [6]  # after the three images of -B and those of -M
    original = runners.Runner.upscale

    def upscale(self, row, lr):
        measured.append(row.variant)
        if stops and len(measured) == stops[0]:
            stops.clear()
            raise KeyboardInterrupt
        return original(self, row, lr)

    monkeypatch.setattr(runners.Runner, "upscale", upscale)
    assert main(["evaluate", str(folder / "suite.toml"), "--json", str(target)]) == 130
    half = json.loads(target.read_text())["rows"]
    assert [row["variant"] for row in half] == ["base", "base"]
    rows = run(folder, target)
    assert measured[6:] == ["masked"] * 6
    assert rows[:2] == half
    measured.clear()
    assert run(folder, target) == rows
    assert not measured
    image = folder / "sets/Two/im0.png"
    picture = Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.save(image)
    run(folder, target)
    assert len(measured) == 9, "a set has changed"


def test_the_mask_is_compared_with_what_refining_changes(folder, tmp_path):
    rows = run(folder, tmp_path / "rows.json")
    network = load_model(folder / "tiny.safetensors")
    pairs, grids = [], []
    with torch.no_grad():
        for name in ("im0", "im1"):
            lr = to_tensor(load_pair(folder / f"sets/One/{name}.png", None, 2)[1])
            coarse, feature = network.coarse(lr)
            pairs.append((network.mask(feature)[0], differences(network, coarse, every_patch(network, feature))[0]))
            grids.append(pairs[-1][0].numel())
    unit = float(np.quantile(torch.cat([d.flatten() for _, d in pairs]).numpy(), 0.95))
    l1 = np.mean([float((mask - (d / unit).clamp(max=1)).abs().mean()) for mask, d in pairs])
    for row, counts in ((rows[2], [4, 4]), (rows[3], [round(n / 2) for n in grids])):
        overlaps = []
        for (mask, difference), k in zip(pairs, counts, strict=True):
            chosen, worst = (set(m.flatten().topk(k).indices.tolist()) for m in (mask, difference))
            overlaps.append(len(chosen & worst) / k)
        figures = row["sets"]["One"]["mask"]
        assert figures["l1"] == pytest.approx(l1, rel=1e-4)
        assert figures["overlap"] == pytest.approx(np.mean(overlaps))
        assert figures["overlap_by_chance"] == pytest.approx(
            np.mean([k / n for k, n in zip(counts, grids, strict=True)])
        )
        assert figures["unit_from"] == "set"


def test_overlap_by_hand_and_the_unit_of_the_training():
    mask = np.array([[0.9, 0.8], [0.1, 0.2]], np.float32)
    difference = np.array([[0.03, 0.01], [0.02, 0.0]], np.float32)
    pair = masks.MaskPair(mask, difference)
    assert masks.top_overlap([pair, pair], [2, 1]) == pytest.approx(((1 / 2 + 1) / 2, (2 / 4 + 1 / 4) / 2))
    assert masks.unit_of([pair], {"mask_unit": 0.02}) == (0.02, "training")
    assert masks.mask_l1([pair], 0.02) == pytest.approx((0.1 + 0.3 + 0.9 + 0.2) / 4)
    assert masks.mask_figures([pair], [0], {"mask_unit": 0.02})["overlap"] is None


def test_photographs_are_timed_as_they_are_run(folder, tmp_path):
    text = (folder / "suite.toml").read_text().replace('size = "64x48"', 'size = "64x48"\nseconds = "photographs"')
    (tmp_path / "suite.toml").write_text(text.replace('["base", "masked"]', '["base", "decomposed", "all", "masked"]'))
    assert main(["evaluate", str(tmp_path / "suite.toml"), "-o", str(tmp_path / "table.md")]) == 0
    assert "s at 64x48" in (tmp_path / "table.md").read_text()


def test_images_may_be_made_as_photographs_are(folder, tmp_path):
    """In bf16 where the processor has it, so the figures are close to those of float32, and seldom the same."""
    found = {}
    for images in ("tensors", "photographs"):
        text = (folder / "suite.toml").read_text().replace('size = "64x48"', f'size = "64x48"\nimages = "{images}"')
        (tmp_path / "suite.toml").write_text(text.replace('["base", "masked"]', '["base", "decomposed", "masked"]'))
        store = tmp_path / f"{images}.json"
        command = ["evaluate", str(tmp_path / "suite.toml"), "-o", str(tmp_path / f"{images}.md"), "--json", str(store)]
        assert main(command) == 0
        found[images] = json.loads(store.read_text())["rows"]
    for exact, fast in zip(found["tensors"], found["photographs"], strict=True):
        assert ("run" in fast, "run" in exact) == (fast["file"] is not None, False)
        for name, figures in exact["sets"].items():
            assert fast["sets"][name]["psnr_y"] == pytest.approx(figures["psnr_y"], abs=0.1)
    assert "as photographs are" in (tmp_path / "photographs.md").read_text()


def test_one_model_on_all_sets_of_a_folder(folder, tmp_path, capsys):
    command = ["evaluate", "--sets", folder / "sets", "--scale", 2, "--model", folder / "tiny.safetensors"]
    command += ["--variant", "base", "all", "--json", tmp_path / "rows.json"]
    assert main([str(word) for word in command]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["base", "base", "all"]
    assert "| tiny -A |" in capsys.readouterr().out


def test_selections_have_rows_of_their_own():
    suite = Suite(2, k=[7], variants=["masked"], selections=["largest", "random"], bicubic=False, seed=3)
    suite.models = [runners.ModelEntry("m", "fsrcnn-x4")]
    assert [(row.k, row.selection, row.seed) for row in rows_of(suite)] == [(7, "largest", 3), (7, "random", 3)]


def test_a_model_may_have_variants_of_its_own():
    suite = Suite(4, k=[7], variants=["base", "masked"], bicubic=False)
    suite.models = [runners.ModelEntry("d", "fsrcnn-x4", variants=["decomposed"]), runners.ModelEntry("m", "fsrcnn-x4")]
    assert [(row.label, row.variant) for row in rows_of(suite)] == [("d", "decomposed"), ("m", "base"), ("m", "masked")]


def test_amounts():
    assert [amount(item) for item in (0, "240", "12.5%", "all")] == [(0, None), (240, None), (None, 0.125), (None, 1.0)]
    for item in ("half", -1, "101%", 1.5, True, ""):
        with pytest.raises(InputError, match="K is a number such as 240"):
            amount(item)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("scale = 2", "scale = 4"), "is for x2, not for x4"),
        (("scale = 2", "scale = 5"), "suite.scale 5 does not exist"),
        (('"base", ', '"bass", '), "suite.variants 'bass' does not exist; choose from base"),
        (('name = "tiny"', 'name = "tiny"\nvariants = ["bass"]'), "suite.variants 'bass' does not exist"),
        (('"50%"', '"half"'), "K is a number such as 240"),
        (('"64x48"', '"4K"'), "a size is WIDTHxHEIGHT"),
        (("/sets", "/nowhere"), "nowhere does not exist"),
        (
            ("scale = 2", 'images = "drawings"\nscale = 2'),
            "suite.images 'drawings' does not exist; choose from tensors",
        ),
        (
            ("scale = 2", 'images = "photographs"\nselections = ["random"]\nscale = 2'),
            "photographs take the selection of the model",
        ),
        (("size =", "sice ="), r"evaluate: unknown setting suite.sice"),
        (("tiny.safetensors", "none.safetensors"), "neither a shipped model"),
        (("k =", 'only = ["Set5"]\nk ='), "there is no test set Set5, only One, Two"),
        (('name = "tiny"', 'name = "tiny"\nnetwork = "pan"'), "unknown setting suite.models.*network"),
        (('name = "tiny"', 'name = "tiny"\ncolour = "y"'), "colour cannot be given.*`mga train` wrote; leave it out"),
        (("folders", "[[models]]\n#"), "models|test set"),
    ],
)
def test_one_sentence_about_what_is_wrong(folder, tmp_path, capsys, change, message):
    text = (folder / "suite.toml").read_text()
    assert change[0] in text
    (tmp_path / "suite.toml").write_text(text.replace(*change))
    assert main(["evaluate", str(tmp_path / "suite.toml"), "-o", str(tmp_path / "table.md")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "table.md").exists()


def test_arguments_that_do_not_go_together(folder, tmp_path, capsys):
    (tmp_path / "rows.json").write_text("[]")
    suite, sets = str(folder / "suite.toml"), str(folder / "sets")
    for words, message in (
        ([suite, "--k", "3"], "--k is a setting of the suite"),
        ([suite, "--model", "m", "--variant", "all"], "--model is a setting of the suite"),
        ([suite, "--lr", sets], "--lr goes with --hr"),
        ([suite, "--json", str(tmp_path / "rows.json")], "is no file of figures to go on with"),
        ([suite, "-o", str(tmp_path / "no/table.md")], "its folder does not exist"),
        (["--sets", sets, "--lr", sets], "--lr goes with --hr"),
        (["--hr", sets, "--scale", "2", "--variant", "base", "all"], "takes one --variant"),
        (["--hr", sets, "--scale", "2", "-o", str(tmp_path / "t.md")], "-o goes with --sets"),
    ):
        assert main(["evaluate", *words]) == 1
        assert message in capsys.readouterr().err


def published(folder: Path, target: Path, **settings: str) -> Path:
    """A suite of the tiny model and a published FSRCNN of luma, made as the code of its authors has it."""
    state, _ = originals.fsrcnn_classic(2)
    state = {name: tensor / 20 if name.startswith("last_part") else tensor for name, tensor in state.items()}
    torch.save(state, target / "luma.pth")
    text = (folder / "suite.toml").read_text() + f'[[models]]\nname = "luma"\nfile = "{target}/luma.pth"\n'
    (target / "suite.toml").write_text(text + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    return target / "luma.pth"


def test_a_published_network_has_one_row_and_its_own_luma(folder, tmp_path):
    path = published(folder, tmp_path, input_range='"16..235"', model_scale="2")
    rows = run(tmp_path, tmp_path / "rows.json", "-o", tmp_path / "table.md")
    assert [(row["model"], row["variant"]) for row in rows[3:]] == [("tiny", "masked"), ("luma", "whole")]
    row = rows[-1]
    model = MaskGuidedSR.from_checkpoint(path, input_range="16..235", scale=2, device="cpu")
    expected = evaluate(model, find_pairs(folder / "sets/One", None, 2), "whole")["mean"]
    figures = row["sets"]["One"]
    assert (figures["psnr_y"], figures["ssim_y"]) == pytest.approx((expected["psnr_y"], expected["ssim_y"]))
    for entry in figures["images"]:
        hr, lr = load_pair(folder / f"sets/One/{entry['name']}.png", None, 2)
        sr = to_uint8(model(to_tensor(lr))[0])
        assert entry["psnr_rgb"] == pytest.approx(psnr_rgb(sr, hr, 2))
        assert entry["psnr_y"] != pytest.approx(psnr_y(sr, hr, 2), abs=1e-6), (
            "rounded RGB is not what it is compared by"
        )
    # d = 10 and s = 6 channels, two maps, one plane: weights and biases, PReLU slopes, of the convolutions alone.
    convolutions = 25 * 10 + 10 * 6 + 2 * 9 * 6 * 6 + 6 * 10
    assert row["params"] == convolutions + 81 * 10 + (10 + 6 + 6 + 6 + 10 + 1) + (10 + 3 * 6 + 10)
    # Charged once for each LR pixel; the transposed convolution for each of the 4 HR pixels; a ReLU for each value.
    assert row["gmacs"] == pytest.approx(32 * 24 * (convolutions + 4 * 81 * 10 + (10 + 3 * 6 + 10)) / 1e9)
    found = {name: row[name] for name in ("network", "blocks", "colour", "input_range", "k", "selection")}
    expected = {"network": "fsrcnn", "blocks": 2, "colour": "y", "input_range": "16..235", "k": None, "selection": None}
    assert found == expected
    table = (tmp_path / "table.md").read_text()
    assert "| luma |" in table
    assert "compared by it, not rounded to 8 bits: luma." in table


def test_one_published_network_on_all_sets_of_a_folder(folder, tmp_path, capsys):
    path = published(folder, tmp_path)
    command = ["evaluate", "--sets", str(folder / "sets"), "--scale", "2", "--model", str(path)]
    decided = ["--input-range", "16..235", "--model-scale", "2"]
    for words, message in (
        (command, "say which: "),
        ([*command, *decided, "--variant", "base"], "has no mask, so variant cannot be given"),
        ([*command, *decided, "--k", "3"], "has no mask, so k cannot be given"),
        ([str(folder / "suite.toml"), *decided], "--input-range is a setting of the suite"),
    ):
        assert main(words if words[0] == "evaluate" else ["evaluate", *words]) == 1
        assert message in capsys.readouterr().err
    assert main([*command, *decided, "--json", str(tmp_path / "rows.json")]) == 0
    assert [row["variant"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]] == ["base", "whole"]


def test_a_whole_network_has_no_mask_to_compare(tmp_path):
    torch.save(dict(originals.msrresnet(2)[0]), tmp_path / "whole.pth")
    model = MaskGuidedSR.from_checkpoint(tmp_path / "whole.pth", device="cpu")
    with pytest.raises(InputError, match="msrresnet is a whole network, which has none"):
        masks.predict(model, np.zeros((8, 8, 3), np.uint8))


def test_equal_images_are_written_as_equal(tmp_path):
    network = load_model(write_tiny_model(tmp_path / "m.safetensors"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    save_model(tmp_path / "m.safetensors", network, {}, {})
    (tmp_path / "set").mkdir()
    Image.new("RGB", (32, 32), (0, 0, 0)).save(tmp_path / "set/a.png")
    command = ["evaluate", "--sets", tmp_path / "set", "--scale", 2, "--model", tmp_path / "m.safetensors"]
    command += ["--variant", "base", "-o", tmp_path / "t.md", "--json", tmp_path / "r.json"]
    assert main([str(word) for word in command]) == 0
    assert "| equal / 1.0000 / equal |" in (tmp_path / "t.md").read_text()


def test_published_networks_have_their_published_figures(shared_data, tmp_path):
    """On Set5 x4, beside 28.43 dB for MATLAB's bicubic."""
    published = {"pan_x4_zhaohengyuan1": 32.131, "fsrcnn_x4_XDpaddle": 30.474}
    text = f'scale = 4\nfolders = ["{shared_data}/data/testsets"]\nonly = ["Set5"]\n'
    for name in published:
        text += f'[[models]]\nname = "{name}"\nfile = "{shared_data}/data/checkpoints/{name}.pth"\n'
    (tmp_path / "suite.toml").write_text(text)
    bicubic, *rows = run(tmp_path, tmp_path / "rows.json")
    assert bicubic["sets"]["Set5"]["psnr_y"] == pytest.approx(28.43, abs=0.01)
    for row, figure in zip(rows, published.values(), strict=True):
        assert row["variant"] == "whole"
        assert row["sets"]["Set5"]["psnr_y"] == pytest.approx(figure, abs=0.005)
        assert row["sets"]["Set5"]["lr"] == "given"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_is_one(path, monkeypatch):
    for name in ("MGA_SHARED", "MGA_PACKS", "MGA_SETS", "MGA_CHECKPOINTS", "PHOTOS", "CONVERTED", "RUNS"):
        monkeypatch.setenv(name, "somewhere")
    if path.stem.startswith(("suite", "published", "converted")):
        assert load_suite(path).models
        return
    what = "-classes" if path.stem.endswith("-classes") else ""
    for name in ("fsrcnn",) if path.stem.startswith("fsrcnn") else ("rfdn", "pan", "srresnet", "rcan"):
        for scale in (2, 4):
            recipe = load_recipe(path, {"network": name, "scale": str(scale)})
            assert (recipe.network, recipe.out) == (name, f"runs/{name}{what}-x{scale}")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_suite_follows_its_scale(scale, monkeypatch):
    for name in ("MGA_SETS", "PHOTOS", "RUNS"):
        monkeypatch.setenv(name, "somewhere")
    suite = load_suite(CONFIGS / "suite-fsrcnn.toml", {"scale": str(scale)})
    files = [f"somewhere/{name}-x{scale}.safetensors" for name in ("base", "dense")]
    assert [model.file for model in suite.models] == [*files, f"fsrcnn-x{scale}"]


def test_the_example_is_a_suite(folder, monkeypatch):
    path = CONFIGS / "suite-x4.toml"
    with pytest.raises(InputError, match=r"suite.folders\[0\] = .* names an environment variable that is not set"):
        load_suite(path)
    monkeypatch.setenv("MGA_SETS", str(folder / "sets"))
    suite = load_suite(path)
    assert [one.name for one in suite.image_sets()] == ["One", "Two"]
    assert [row.k for row in rows_of(suite) if row.variant == "masked"] == [240, 1000]
