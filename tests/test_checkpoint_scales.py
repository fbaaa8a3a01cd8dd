"""The scale of a network whose tensors leave it open: by what is asked for, by the images, by the name of the file."""

from __future__ import annotations

import json
import warnings

import local_originals
import numpy as np
import originals
import pytest
import torch
from PIL import Image
from test_authors_layout import authors_layout
from test_published import linear_fsrcnn

from mga.cli import main
from mga.conversion import convert
from mga.evaluation.resize import imresize
from mga.evaluation.suite.config import ModelEntry
from mga.evaluation.suite.runners import Runner
from mga.report import write_report
from mga_kernels import MaskGuidedSR, export
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.checkpoints.scales import scales_in_name
from mga_kernels.errors import CheckpointError, CheckpointNote, InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

NAMED = {
    "pan_x2.pth": 2,
    "PAN_2x.pth": 2,
    "2x-pan.pth": 2,
    "2X.pth": 2,
    "pan-X3.pth": 3,
    "PAN-x4": 4,
    "pan.x3.pth": 3,
    "pan x2.pth": 2,
    "pan(x2).pth": 2,
    "RFDN×2.pth": 2,
    "x3": 3,
    "netX2.pth": 2,
    "PANx3.pth": 3,
    "panx3.pth": 3,
    "PANX2.pth": 2,
    "SRx4.pth": 4,
    "pan_x2.0.pth": 2,
    "scale2.pth": 2,
    "net_scale_3.pth": 3,
    "upscale-4.pth": 4,
    "PAN_SRF_2.pth": 2,
    "net_g_x2_latest.pth": 2,
    "FSRCNN-x4-56-12-4.pth": 4,
    "fsrcnn_x2_Saafke.pth": 2,
    "4xNomosUniDAT2_otf.pth": 4,
    "4x_ESRGAN_4x.pth": 4,
    "4xUltrasharp_4xUltrasharpV10.pt": 4,
    "2xHFA2kSPAN_27k.safetensors": 2,
    "RealESRGAN_x4plus.pth": 4,
    "realesr-general-x4v3.pth": 4,
    "realesrgan-x4minus.pth": 4,
    "spanx4_ch48.safetensors": 4,
    "BSRGANx2.pth": 2,
    "EDSR_Mx2_f64b16_DIV2K_official-3ba7b086.pth": 2,
    "001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pth": 2,
    "PAN_LR48x48_x3.pth": 3,
    "pan_X4_1024x768.pth": 4,
    "pan_x2_x264.pth": 2,
    "8x_NMKD-Superscale_150000_G.pth": 8,
    "1x_DeJPG.pth": 1,
}
SILENT = (
    "x264.pth hevc_x265.pth v2x.pth 1024x768.pth 64x64_best.pth pan_3x3.pth model_0x2.pth a3x2f9b0c1.pth "
    "8f3x2b1c9dx4.pth 2xl4k9q7z.pth x2y3z4w5.pth pan-5f3ee0e1.pth avx2.pth AVX2.pth max2.pth linux4.pth flux2.pth "
    "vertex3.pth index2.pth box4.pth tx2.pth jetson_tx2.pth rtx3090.pth x86_64.pth x64.pth x2048.pth 404x.pth "
    "pan_1.2x.pth pan_x2.5.pth x0.pth pix2pix.pth hex2bin.pth sdxl.pth epoch2.pth mobilenetv2x.pth net_g_latest.pth"
).split()


@pytest.mark.parametrize("name", NAMED)
def test_names_that_tell_a_scale(name):
    assert scales_in_name(name) == {NAMED[name]}


@pytest.mark.parametrize("name", SILENT)
def test_names_that_tell_none(name):
    assert scales_in_name(name) == set()


@pytest.mark.parametrize("name", ["pan_x2_x3.pth", "x2x3x4.pth", "2x-from-4x.pth", "PANx2_to_x3.pth", "x2-scale3.pth"])
def test_names_that_tell_several(name):
    assert len(scales_in_name(name)) > 1


def written(path, state) -> str:
    torch.save(dict(state), path)
    return str(path)


def pan(tmp_path, name: str, scale: int = 2) -> str:
    """A PAN of random weights: neither shapes nor a trial tell x2 from x3."""
    return written(tmp_path / name, originals.pan(scale)[0])


@pytest.mark.parametrize(("name", "scale"), [("2x-pan.pth", 2), ("pan_X3.pth", 3), ("pan_x3_x264.safetensors.pth", 3)])
def test_the_name_of_a_file_decides_with_a_note(tmp_path, name, scale):
    path = pan(tmp_path, name)
    with pytest.warns(
        CheckpointNote, match=rf"PAN .*x2 or x3.*taken for x{scale}, because its name says x{scale}; scale="
    ):
        assert load_checkpoint(path).config.scale == scale


@pytest.mark.parametrize("name", ["pan.pth", "pan_x2_x3.pth", "x264.pth", "pan_x4.pth", "1x_pan.pth", "1024x768.pth"])
def test_names_that_do_not_decide_leave_the_error(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"x2 or x3, which its tensors do not tell.*scale= \(--model-scale\)"):
        load_checkpoint(pan(tmp_path, name))


def test_what_is_asked_for_comes_before_the_name(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no note
        assert load_checkpoint(pan(tmp_path, "pan.pth"), expected_scale=3).config.scale == 3
        assert load_checkpoint(pan(tmp_path, "pan_x3.pth"), expected_scale=3).config.scale == 3
        assert load_checkpoint(pan(tmp_path, "pan_x3.pth"), scale=2).config.scale == 2
        assert MaskGuidedSR.from_checkpoint(pan(tmp_path, "p.pth"), expected_scale=2, device="cpu").scale == 2
    with pytest.warns(CheckpointNote, match=r"taken for x2, because x2 is asked for, although its name says x3"):
        assert load_checkpoint(pan(tmp_path, "pan_x3.pth"), expected_scale=2).config.scale == 2


def test_what_a_file_tells_comes_before_all(tmp_path):
    """By its shapes, as PAN x4 and MSRResNet, or by a trial, as an FSRCNN that works."""
    assert load_checkpoint(pan(tmp_path, "pan_x2.pth", 4), expected_scale=2).config.scale == 4
    linear = written(tmp_path / "fsrcnn_x4.pth", linear_fsrcnn(3))
    assert load_checkpoint(linear, input_range="0..1", expected_scale=2).config.scale == 3
    with pytest.raises(CheckpointError, match=r"PAN .* for x2 or x3, and x4 is asked for"):
        load_checkpoint(pan(tmp_path, "pan.pth"), expected_scale=4)
    with pytest.raises(CheckpointError, match="it is for x2 or x3, not for scale=4"):
        load_checkpoint(pan(tmp_path, "pan_x2.pth"), scale=4)
    with pytest.raises(InputError, match="scale 7 is not supported"):
        load_checkpoint(pan(tmp_path, "pan_x2.pth"), scale=7)


def test_the_range_is_still_tried_at_that_scale(tmp_path):
    """Of random weights, for which it does not decide either."""
    state = originals.fsrcnn_classic(2, 1)[0]
    with pytest.raises(CheckpointError) as caught, pytest.warns(CheckpointNote):
        load_checkpoint(written(tmp_path / "fsrcnn_x2.pth", state))
    assert "input_range=" in str(caught.value)
    assert "scale=" not in str(caught.value), "its name has decided that"


def test_mask_guided_files_too(tmp_path):
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 3, split=(2, 1))).eval()
    with pytest.raises(CheckpointError, match="scale="):
        load_checkpoint(written(tmp_path / "model.pth", authors_layout(made)))
    assert load_checkpoint(str(tmp_path / "model.pth"), expected_scale=3).config.scale == 3
    with pytest.warns(CheckpointNote, match="its name says x3"):
        assert load_checkpoint(written(tmp_path / "3x.pth", authors_layout(made))).config.scale == 3


@pytest.fixture
def folders(tmp_path):
    """HR images, and their LR images at x2."""
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    for i in range(2):
        hr = np.random.default_rng(i).integers(0, 256, (48, 44 + 4 * i, 3), dtype=np.uint8)
        Image.fromarray(hr).save(tmp_path / f"HR/{i}.png")
        Image.fromarray(imresize(hr, 0.5)).save(tmp_path / f"LR/{i}.png")
    return tmp_path


def run(capsys, *words) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


def test_evaluate_needs_no_more_than_its_own_scale(folders, capsys):
    model, figures = pan(folders, "pan.pth"), folders / "out.json"
    words = ["evaluate", "--model", model, "--hr", folders / "HR", "--json", figures]
    assert run(capsys, *words, "--scale", 2) == (0, "")
    assert json.loads(figures.read_text())["scale"] == 2
    assert run(capsys, *words, "--scale", 3) == (0, "")
    assert json.loads(figures.read_text())["scale"] == 3
    code, error = run(capsys, *words, "--scale", 4)
    assert code == 1
    assert "for x2 or x3, and x4 is asked for" in error
    code, error = run(capsys, *words, "--scale", 3, "--model-scale", 2)
    assert code == 1
    assert f"evaluate: the model {model} is for x2, not for --scale 3" in error


def test_the_sizes_of_the_images_are_a_scale(folders, capsys):
    model, figures = pan(folders, "pan.pth"), folders / "out.json"
    words = ["evaluate", "--model", model, "--hr", folders / "HR", "--lr", folders / "LR", "--json", figures]
    assert run(capsys, *words) == (0, "")
    assert json.loads(figures.read_text())["scale"] == 2
    Image.new("RGB", (5, 5)).save(folders / "LR/0.png")
    code, error = run(capsys, *words)
    assert code == 1
    assert "--scale is missing, and the images in" in error
    assert "fit none of x1, x2, x3, x4, x8, x16" in error
    (folders / "LR/0.png").write_bytes(b"no image")
    code, error = run(capsys, *words)
    assert code == 1
    assert "LR/0.png" in error
    code, error = run(capsys, *words[:-3], folders / "nowhere", *words[-2:])
    assert code == 1
    assert "nowhere" in error


def test_without_lr_images_the_scale_is_the_models_own(folders, capsys):
    figures = folders / "out.json"
    words = ["evaluate", "--hr", folders / "HR", "--json", figures, "--model"]
    assert run(capsys, *words, written(folders / "net.pth", dict(local_originals.compact(3)[0]))) == (0, "")
    assert json.loads(figures.read_text())["scale"] == 3
    code, said = run(capsys, *words, pan(folders, "pan_x3.pth"))
    assert (code, said.count("taken for x3, because its name says x3")) == (0, 1), said
    assert json.loads(figures.read_text())["scale"] == 3
    torch.save({"params": originals.msrresnet(4)[0], "params_ema": originals.msrresnet(2)[0]}, folders / "both.pth")
    code, said = run(capsys, *words, folders / "both.pth")
    assert (code, said.count("taken is params_ema")) == (0, 1), said
    code, error = run(capsys, *words, pan(folders, "pan.pth"))
    assert code == 1
    assert "say which: scale= (--model-scale)" in error
    assert main(["evaluate", "--sets", str(folders), "--model", str(folders / "net.pth")]) == 0
    assert "Evaluation, x3" in capsys.readouterr().out


@pytest.mark.parametrize("scale", [1, 8, 16])
def test_the_sizes_of_the_images_are_any_scale_of_a_network(tmp_path, scale, capsys):
    for name, side in (("HR", 16 * scale), ("LR", 16)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (side, 2 * side), (90, 80, 70)).save(tmp_path / f"{name}/a.png")
    model = written(tmp_path / "net.pth", dict(local_originals.compact(scale)[0]))
    asked = ["evaluate", "--model", model, "--json", tmp_path / "out.json"]
    assert run(capsys, *asked, "--hr", tmp_path / "HR", "--lr", tmp_path / "LR") == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())["scale"] == scale
    (tmp_path / "out.json").unlink()
    assert run(capsys, *asked, "--sets", tmp_path, "--scale", scale) == (0, "")


def test_figures_take_the_scale_of_the_images(folders, capsys):
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, split=(1, 1))).eval()
    model = written(folders / "model.pth", authors_layout(made))
    words = ["figures", folders / "HR", "-o", folders / "out", "--kinds", "error", "--model", model]
    assert run(capsys, *words, "--lr", folders / "LR") == (0, "")
    code, error = run(capsys, *words, "--overwrite")
    assert code == 1
    assert "which its tensors do not tell; say which: scale= (--model-scale)" in error


@pytest.mark.parametrize("scale", [2, 3])
def test_a_suite_has_a_scale(tmp_path, scale):
    runner = Runner(ModelEntry("PAN", pan(tmp_path, "pan.pth")), scale, "cpu", "float32")
    assert runner.model.scale == scale


def test_upscale_with_a_scale_and_a_file(folders, capsys):
    model, source, target = pan(folders, "pan_x3.pth"), folders / "LR/0.png", folders / "large.png"
    code, error = run(capsys, "upscale", source, "-o", target, "--model", model, "--scale", 2)
    assert code == 0
    assert error.count("\n") == 1
    assert error.startswith("mga: note: checkpoint: ")
    assert "because x2 is asked for, although its name says x3" in error
    assert Image.open(target).size == (44, 48)
    code, error = run(capsys, "upscale", source, "-o", target, "--model", model, "--overwrite")
    assert (code, Image.open(target).size) == (0, (66, 72))
    assert "because its name says x3" in error
    code, error = run(capsys, "upscale", source, "-o", target, "--model", "fsrcnn-x2", "--scale", 4, "--overwrite")
    assert code == 1
    assert "upscale: the model fsrcnn-x2 is for x2, not for --scale 4" in error
    assert run(capsys, "upscale", source, "-o", folders / "3.png", "--scale", 3)[0] == 0
    assert Image.open(folders / "3.png").size == (66, 72)


def test_export_takes_a_scale(folders, capsys, monkeypatch):
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 3, split=(1, 1))).eval()
    words = ["export", written(folders / "model.pth", authors_layout(made)), "-o", folders / "out.pt2"]
    code, error = run(capsys, *words)
    assert code == 1
    assert "--model-scale" in error
    traced = []
    monkeypatch.setattr(export, "trace", lambda network, *_: traced.append(network.config.scale))
    monkeypatch.setitem(export.FORMATS, "pt2", (lambda: None, lambda *_: None))
    assert run(capsys, *words, "--model-scale", 3) == (0, "")
    assert traced == [3]


def test_a_report_takes_the_scale_of_the_images_and_of_the_model(folders):
    """A model that is for x2, x3 or x4 by its tensors, and an original that is for x2 or x3."""

    class Loaded(Exception):
        pass

    def stop_after_loading(text: str) -> None:
        if text != "loading":
            raise Loaded

    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, split=(1, 1))).eval()
    model, original = written(folders / "model.pth", authors_layout(made)), pan(folders, "pan.pth")
    with pytest.raises(Loaded):
        write_report(
            model, original, folders / "LR", folders / "out.html", folders / "HR", ks=[0], say=stop_after_loading
        )


def test_a_conversion_takes_the_scale_of_its_images(folders, monkeypatch):
    seen = []

    def load(*args, **settings):
        seen.append(settings["expected_scale"])
        raise CheckpointError("far enough")

    monkeypatch.setattr(convert, "load_checkpoint", load)
    paths = ["-o", str(folders / "out.safetensors"), "--images", str(folders / "LR")]
    page = ["--report", str(folders / "page.html"), "--hr", str(folders / "HR")]
    assert main(["convert", pan(folders, "pan.pth"), *paths, *page]) == 1
    assert main(["convert", pan(folders, "pan.pth"), *paths]) == 1
    assert seen == [2, None]
