"""Every command about masks takes a model that refines regions: the one that ships, on small images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from network_zoo import ROOT
from PIL import Image

from mga.cli import build_parser, main
from mga.commands.options import DEFAULT_MODEL
from mga.complexity.counting import RegionCosts
from mga.evaluation.suite import runners
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, shipped_models
from mga_kernels.engine import choice
from mga_kernels.networks import RegionConfig

PATH = shipped_models()[DEFAULT_MODEL]
HR = 112, 160  # 28x40 LR pixels, 3x4 cells


@pytest.fixture(scope="module")
def config() -> RegionConfig:
    config = load_checkpoint(PATH).config
    assert isinstance(config, RegionConfig), "the default model of these commands refines regions"
    return config


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two images, of which one is flat on its right half."""
    folder = tmp_path_factory.mktemp("regions") / "sets"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (HR[0] // 2, HR[1] // 2, 3), np.uint8)
        pixels = np.array(Image.fromarray(pixels).resize(HR[::-1], Image.Resampling.BICUBIC))
        if number:
            pixels[:, HR[1] // 2 :] = 128
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def mga(*arguments: object) -> int:
    return main([str(word) for word in arguments])


def cells_of(path: Path) -> int:
    """Cells of the LR image that are refined by itself."""
    from mga.evaluation.testsets import load_pair

    _, lr = load_pair(path, None, 4)
    return len(MaskGuidedSR.from_pretrained(DEFAULT_MODEL, runtime="pytorch").explain(lr).indices)


def test_figures_are_drawn_of_all_but_a_mask_that_was_not_learned(sets, tmp_path, capsys):
    assert mga("figures", sets, "-o", tmp_path / "out") == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{number}-{kind}.png" for number in "01" for kind in ("crops", "error")]
    capsys.readouterr()
    assert mga("figures", sets, "-o", tmp_path / "more", "--kinds", "mask") == 1
    assert "has regions by a mask that is not learned; name a mask-guided model" in capsys.readouterr().err


def test_evaluation_says_how_many_cells_were_refined(sets, tmp_path, config, monkeypatch):
    assert mga("evaluate", "--hr", sets, "--scale", 4, "--json", tmp_path / "folder.json") == 0
    figures = json.loads((tmp_path / "folder.json").read_text())
    assert (figures["k"], figures["fraction"], figures["threshold"]) == (None, None, config.qualities["high"])
    expected = [cells_of(sets / f"{number}.png") for number in range(2)]
    assert [entry["k"] for entry in figures["images"]] == expected
    assert 0 < expected[1] < expected[0]

    asked, count = [], runners.refined
    monkeypatch.setattr(runners, "refined", lambda *given: asked.append(given) or count(*given))
    assert mga("evaluate", "--sets", sets, "--scale", 4, "--variant", "base", "decomposed", "all", "masked",
               "--json", tmp_path / "rows.json", "-o", tmp_path / "table.md") == 0  # fmt: skip
    _, base, decomposed, every, masked = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(asked) == 2, "once for each image of the row that has cells, which is run for that"
    one = next(iter(masked["sets"].values()))
    assert one["mean_k"] == np.mean(expected)
    assert (masked["k"], masked["gmacs"]) == (None, None), "which another image has another of"
    costs = RegionCosts(config)
    counted = [costs.cost("masked", 40, 28, k).macs / 1e9 for k in expected]
    assert one["gmacs"] == pytest.approx(np.mean(counted))
    assert base["sets"] != decomposed["sets"]
    quality = [[(image["psnr_y"], image["ssim_y"]) for one in row["sets"].values() for image in one["images"]]
               for row in (decomposed, every)]  # fmt: skip
    assert quality[0] == quality[1], "cells are refined as if they were all chosen"
    assert "| usual |" in (tmp_path / "table.md").read_text()


def test_studies_have_shares_of_the_cells(sets, tmp_path):
    for study, rows in (("k", ["0", "25 %", "50 %", "100 %"]), ("selection", ["0", "30 %", "50 %", "100 %"])):
        assert mga("ablate", study, PATH, "-o", tmp_path / study, "--sets", sets) == 0
        table = (tmp_path / study / f"{study}.md").read_text()
        found = [line.split("|")[2].strip().split(",")[0] for line in table.splitlines() if line.startswith("| span")]
        assert list(dict.fromkeys(found)) == rows


def test_operations_are_of_the_share_or_of_the_cells_that_are_named(config, tmp_path, capsys):
    file = tmp_path / "figures.json"
    for k, share in ((None, config.share), (12, 12 / (80 * 45)), (10**6, 1.0)):
        named = [] if k is None else ["--k", k]
        assert mga("complexity", "--model", PATH, "--size", "960x540", *named, "--json", file) == 0
        figures, costs = json.loads(file.read_text()), RegionCosts(config)
        whole, base = (costs.cost(variant, 960, 540).macs for variant in ("decomposed", "base"))
        assert figures["gmacs"] == pytest.approx((base + share * whole) / 1e9)
        assert ("30 % of the cells" in capsys.readouterr().out) is (k is None)
    assert costs.cost("all", 960, 540) == costs.cost("decomposed", 960, 540)
    assert costs.parameters("all") == costs.parameters("decomposed")


def test_what_is_refined_is_said_in_words(config, capsys):
    assert mga("info") == 0
    said = f"p = 12, the cells above {config.qualities['high']:.4g} by default"
    assert f"{DEFAULT_MODEL}: span x4, {said}" in capsys.readouterr().out


@pytest.mark.parametrize("scale", [[], ["--scale", "2"], ["--scale", "3"], ["--scale", "1.5"]])
@pytest.mark.parametrize("command", ["upscale", "video", "cluster"])
def test_a_quality_is_asked_of_a_model_that_has_it(command, scale):
    """At every scale, where the mask-guided model of that scale may have none."""
    given = [command, "a", "-o", "b", *scale]
    for quality in load_checkpoint(PATH).config.qualities:
        assert build_parser(command).parse_args([*given, "--quality", quality]).model == DEFAULT_MODEL
    usual = build_parser(command).parse_args(given).model
    assert build_parser(command).parse_args([*given, "--quality", "whole"]).model == usual


def test_auto_leaves_a_quality_its_share_of_each_photograph(monkeypatch):
    """What is measured for a size would be all of its cells, which a quality would never be faster with."""
    monkeypatch.setattr(choice.Choice, "_compare", lambda *_: pytest.fail("measured"))
    flat = np.full((96, 96, 3), 90, np.uint8)
    flat[:30, :30] = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    for asked in ({}, {"quality": "fast"}, {"threshold": 0.02}):
        model = MaskGuidedSR.from_pretrained(DEFAULT_MODEL, mode="auto", **asked)
        refined = model.upscale(flat, return_result=True).refined
        assert refined is not None
        assert 0 < refined < 64
        assert model.info()["prepared"][0].startswith("96x96, K <= 64 above")


def test_who_asks_a_whole_network_for_cells_is_told_which_model_has_them(tmp_path, capsys):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    for words in (["--k", 100], ["--fraction", 0.2], ["--mode", "masked"], ["--threshold", 0.1]):
        assert mga("upscale", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", "rfdn-x4", *words) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "cannot be given; leave it out" in said
        assert f"such as {DEFAULT_MODEL}" in said
    words = ["--model", "rfdn-x4", "--save-mask", tmp_path / "m.png"]
    assert mga("upscale", tmp_path / "a.png", "-o", tmp_path / "b.png", *words) == 1
    assert "leave that out or take a mask-guided model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2", "a.pte"])
def test_regions_have_no_graph_whatever_is_installed(name, tmp_path, monkeypatch, capsys):
    missing = lambda: pytest.fail("asked for before the model was looked at")  # noqa: E731
    monkeypatch.setattr("mga_kernels.export.FORMATS", {kind: (missing, missing) for kind in ("onnx", "pt2", "pte")})
    assert mga("export", DEFAULT_MODEL, "-o", tmp_path / name) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "export the network from which it was made, as span-x4-regions was from span-x4" in said
    assert not (tmp_path / name).exists()


def test_the_model_that_ships_makes_no_frame():
    """A coarse picture is about as good at the border, where its network sees zeros, as inside, and what is
    flat is refined nowhere."""
    with Image.open(ROOT / "python/mga/assets/demo.png") as file:
        lr = np.asarray(file.crop((300, 150, 480, 270)))
    coarse = MaskGuidedSR.from_pretrained(DEFAULT_MODEL, k=0).upscale(lr).astype(int)
    wrong = np.square(coarse - MaskGuidedSR.from_pretrained("span-x4").upscale(lr)).mean(2)
    inside = np.zeros(wrong.shape, bool)
    inside[16:-16, 16:-16] = True
    assert wrong[~inside].mean() < 2.5 * wrong[inside].mean()
    for colour in (0, 128, 255):
        flat = np.full((80, 100, 3), colour, np.uint8)
        assert MaskGuidedSR.from_pretrained(DEFAULT_MODEL).upscale(flat, return_result=True).refined == 0
