"""bench/likeness.py: how like pictures of our convolutions are to PyTorch's and to float64's."""

from pathlib import Path

import numpy as np
import pytest
from pictures import save_smooth_picture
from PIL import Image

from mga_kernels import MaskGuidedSR


@pytest.fixture
def likeness(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import likeness

    return likeness


@pytest.fixture
def tiny(tmp_path):
    """Words for a set of one image."""
    hr, lr = tmp_path / "Tiny/HR", tmp_path / "Tiny/LR_bicubic/X2"
    hr.mkdir(parents=True)
    lr.mkdir(parents=True)
    save_smooth_picture(hr / "one.png", 48, 64, seed=0)
    Image.open(hr / "one.png").resize((32, 24), Image.Resampling.BICUBIC).save(lr / "onex2.png")
    return "--data", str(tmp_path), "--sets", "Tiny"


def row(capsys):
    title, _, *lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    (line,) = lines
    return dict(zip(title.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))


def test_both_pictures_are_one(likeness, tiny, capsys):
    likeness.main(["span-x2", *tiny, "--exact"])
    found = row(capsys)
    assert found["model"] == "span-x2"
    assert float(found["PSNR, lowest"]) > 100
    assert float(found["PyTorch to float64"]) > 75
    assert float(found["PSNR-Y to HR differs by"].removesuffix(" dB")) < 0.01


def test_a_picture_that_is_a_level_off_is_told(likeness, tiny, capsys, monkeypatch):
    usual = MaskGuidedSR.upscale

    def upscale(model, image):
        made = np.asarray(usual(model, image))
        return np.where(made > 128, made - 1, made + 1) if model.runtime == "own" and made.dtype == np.uint8 else made

    monkeypatch.setattr(MaskGuidedSR, "upscale", upscale)
    likeness.main(["span-x2", *tiny, "--exact"])
    found = row(capsys)
    assert float(found["PSNR, lowest"]) > 100
    assert float(found["in 8 bits, lowest"]) == pytest.approx(48.1, abs=0.1)
    assert float(found["in 8 bits, ours to float64"]) == pytest.approx(48.1, abs=0.1)
    assert float(found["PyTorch to float64"]) > 75


def test_cells_that_float64_may_choose_otherwise_are_not_compared(likeness, tiny):
    with pytest.raises(SystemExit, match="fsrcnn-x2 has a mask"):
        likeness.main(["fsrcnn-x2", *tiny, "--exact"])


def test_networks_without_weights_of_their_own_have_random_ones(likeness, tiny, monkeypatch, capsys):
    monkeypatch.setattr(likeness, "SCALE", 2)
    likeness.main(["srresnet", *tiny, "--size", "32x24"])
    assert float(row(capsys)["PSNR, lowest"]) > 90
