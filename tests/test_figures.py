"""mga figures: what the pixels of the sheets are, and the files."""

from __future__ import annotations

import numpy as np
import originals
import pytest
import torch
from PIL import Image
from test_authors_layout import authors_layout
from tiny_model import write_tiny_model

from mga.cli import main
from mga.drawing import sheets
from mga.drawing.sheets import BINS, GAP, TEXT, crops_sheet, error_sheet, histogram, luma_error, mask_sheet
from mga.studies.figures import place
from mga_kernels.checkpoints import save_model
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_error_map_is_dark_where_nothing_changed():
    coarse = np.full((40, 40, 3), 100, np.uint8)
    final = coarse.copy()
    final[10:20, 20:30] = 150
    error = luma_error(coarse, final)
    assert error[15, 25] == pytest.approx(50 / 255 * 219 / 255)
    assert error[0, 0] == 0
    sheet = np.asarray(error_sheet(coarse[::2, ::2], coarse, final, side=40))
    assert sheet.shape[0] == 40 + 2 * GAP + TEXT * 3 // 2
    bright = sheet[GAP : GAP + 40].min(2) > 80  # the end of the ramp: yellow
    row = GAP + 15 - GAP
    assert bright[row].any()
    black = (sheet[GAP : GAP + 40] == 0).all(2)
    assert black.sum() == 40 * 40 - 100, "of the map: all but the square"


def test_the_histogram_has_the_shares():
    error = np.zeros((100, 100))
    error[0] = 0.05  # 1 %
    picture = np.asarray(histogram(error, 0.1, 4 * TEXT + BINS * 10, 240))
    left, bottom = 4 * TEXT, 240 - 2 * TEXT

    def height(number: int) -> int:
        column = picture[: bottom + 1, left + 10 * number + 4]
        return int((column.max(1) > 100).sum())

    heights = [height(number) for number in range(BINS)]
    assert heights[0] == pytest.approx(bottom, abs=2)
    assert heights[BINS // 2] == pytest.approx(bottom / 2, abs=2), "1 % is half way from 0.01 % to 100 %"
    assert sum(h > 0 for h in heights) == 2


def test_crops_show_the_box():
    hr, other = noise(40, 60), noise(40, 60, 1)
    sheet = np.asarray(crops_sheet(hr, {"other": other}, (20, 10, 8), side=8))
    scene = round(60 * sheet.shape[0] / 40)
    for image, column in ((hr, 0), (other, 1)):
        assert any(
            np.array_equal(sheet[GAP : GAP + 8, x : x + 8], image[10:18, 20:28])
            for x in range(scene, sheet.shape[1] - 7)
        ), column
    with pytest.raises(InputError, match=r"the box 55,0,8 is not inside the image 60x40"):
        crops_sheet(hr, {}, (55, 0, 8))


def test_the_mask_sheet_shows_both_masks_and_names_the_error(monkeypatch):
    target, mask = np.array([[0, 1.0], [0.5, 0]]), np.array([[0.2, 1.0], [0.5, 0.4]])
    tiles = {}
    original = sheets.row_of
    monkeypatch.setattr(sheets, "row_of", lambda row: tiles.update(row) or original(row))
    mask_sheet(noise(7, 8), noise(14, 16), target, mask, 4, side=8)
    assert list(tiles) == ["LR", "HR", "true mask", "predicted mask, l1 error 0.1500"]
    shown = np.asarray(tiles["predicted mask, l1 error 0.1500"])
    assert shown.shape == (7, 8, 3)
    assert (shown[:4, :4] == 51).all()
    assert (shown[4:, 4:] == 102).all()
    assert (np.asarray(tiles["true mask"])[:4, 4:] == 255).all()


def test_the_place_is_where_most_is_refined(tmp_path):
    model = MaskGuidedSR.from_pretrained(write_tiny_model(tmp_path / "m.safetensors"), k=3)
    mask = np.zeros((12, 18), np.float32)
    mask[6:8, 10:12] = 1
    left, top, side = place(model, mask, (96, 144))
    assert (left, top, side) == (80, 48, 16)


def test_the_command_writes_three_sheets_for_each_image(tmp_path, capsys):
    model = write_tiny_model(tmp_path / "m.safetensors")
    (tmp_path / "hr").mkdir()
    for name in "ab":
        Image.fromarray(noise(50, 62)).save(tmp_path / f"hr/{name}.png")
    command = ["figures", tmp_path / "hr", "-o", tmp_path / "out", "--model", model, "--k", 3]
    assert main([str(word) for word in command]) == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{name}-{kind}.png" for name in "ab" for kind in ("crops", "error", "mask")]
    for name in written:
        assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 10
    capsys.readouterr()
    for words, message in (
        (command, "exists"),
        (["figures", tmp_path / "none.png", "-o", tmp_path / "out", "--model", model], "there is no image"),
        ([*command, "--overwrite", "--box", "60,0,9"], "is not inside the image 62x50"),
    ):
        assert main([str(word) for word in words]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_the_options_of_the_model_count(tmp_path, capsys):
    """A file of the mask-guided authors does not tell its scale; other files refuse what they say themselves."""
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, mask={"order": "pool-then-softmax"}))
    torch.save(authors_layout(made), tmp_path / "authors.pth")
    torch.save(dict(originals.msrresnet(2)[0]), tmp_path / "whole.pth")
    ours = write_tiny_model(tmp_path / "ours.safetensors")
    Image.fromarray(noise(50, 62)).save(tmp_path / "hr.png")
    for model, words, message in (
        ("authors.pth", ["--model-scale", 2], ""),
        ("authors.pth", ["--model-scale", 2, "--colour", "y"], "colour cannot be given"),
        (ours, ["--colour", "y"], "colour cannot be given"),
        (ours, ["--input-range", "0..255"], "input_range cannot be given"),
        (ours, ["--model-scale", 2], "scale cannot be given"),
        ("whole.pth", [], "whole.pth is a whole network, of which there is neither a coarse image nor a mask to show"),
    ):
        command = [
            "figures",
            tmp_path / "hr.png",
            "-o",
            tmp_path / "out",
            "--model",
            tmp_path / model,
            "--k",
            3,
            *words,
        ]
        assert main([*map(str, command), "--overwrite"]) == (1 if message else 0)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == bool(message)
    picture = np.asarray(Image.open(tmp_path / "out/hr-error.png"))
    save_model(tmp_path / "same.safetensors", made, {}, {})
    command = ["figures", tmp_path / "hr.png", "-o", tmp_path / "out", "--model", tmp_path / "same.safetensors"]
    assert main([*map(str, command), "--overwrite"]) == 0
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "out/hr-error.png")))
