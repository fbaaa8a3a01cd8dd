"""`mga convert`: a published network in two halves, fitted, resumed, stopped early; refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import originals
import pytest
import torch
from network_zoo import photographs
from PIL import Image
from teachers import tame, teacher_of

from mga.cli import main
from mga.conversion import extended, fitting, pictures, split_curve
from mga.conversion.fitting import Fitting
from mga.conversion.material import Material
from mga.conversion.settings import Training
from mga.conversion.teacher import halves
from mga.evaluation.masks import every_patch
from mga.evaluation.metrics import luma
from mga.training import loop
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_model, read_metadata, recognise, save_model


@pytest.fixture
def small():
    """One thread, with which sums are the same each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published network's file, and a folder of six parts of photographs."""
    torch.save(dict(tame(originals.msrresnet(2, blocks=3)[0], "conv_last")), tmp_path / "published.pth")
    (tmp_path / "images").mkdir()
    for number, image in enumerate([*photographs(48, 40), *photographs(40, 56), *photographs(32, 32)]):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


SMALL = Training(crop=16, batch=2)  # for tests
ITERATIONS = {"base": 6, "joint": 8, "mask": 6, "refine": 8}


def begin(folder: Path, name: str = "state", extend: bool = False, **iterations: int) -> Fitting:
    state = torch.load(folder / "published.pth", weights_only=True)
    teacher = recognise(state, "published.pth")
    network = halves(teacher, (3, 1) if extend else (2, 1), 4)
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, extend)
    given = ITERATIONS | iterations
    material = Material(train, held_out, folder / name, 1.0, SMALL)
    return Fitting(None if extend else teacher, network, material, given)


def distances(fit: Fitting) -> tuple[float, float]:
    """Mean absolute errors of the coarse and of the refined image on the held-out images."""
    found = []
    with torch.no_grad():
        for lr, wanted in fit.held_out:
            coarse, feature = fit.network.coarse(lr)
            found.append(
                [float((image - wanted).abs().mean()) for image in (coarse, every_patch(fit.network, feature))]
            )
    coarse, refined = np.mean(found, axis=0)
    return coarse, refined


def test_training_brings_both_halves_nearer_to_the_published_network(folder, small):
    fit = begin(folder, base=40, joint=60, mask=80)
    assert len(fit.held_out) == 1
    before, trunk = distances(fit), fit.network.base.recon_trunk[0].conv1.weight.clone()
    spread = fitting.feature_statistics(fit.network, [lr for lr, _ in fit.held_out], 0.95)
    fit._step("base", fit.folder / "base.state")
    assert torch.equal(fit.network.base.recon_trunk[0].conv1.weight, trunk), "the Refine-Net depends on it"
    middle = distances(fit)
    assert middle[0] < 0.9 * before[0]
    assert middle[1] == before[1]
    fit._step("joint", fit.folder / "joint.state")
    after = distances(fit)
    assert after[0] < 0.9 * before[0]
    assert after[1] < 0.9 * before[1]
    assert not torch.equal(fit.network.base.recon_trunk[0].conv1.weight, trunk)
    losses = []
    _, unit = fitting.feature_statistics(fit.network, [lr for lr, _ in fit.held_out], 0.95)
    for step in (None, "mask"):
        if step:
            fit._step(step, fit.folder / "mask.state")
        with torch.no_grad():
            losses += [float(fitting.mask_loss(fit.network, lr, unit, torch.ones(()))) for lr, _ in fit.held_out]
    assert losses[1] < 0.8 * losses[0]
    assert spread[0].shape == (1, 12, 1, 1)


@pytest.mark.parametrize("decibels", [False, True])
def test_extending_trains_the_refine_net_alone_on_hr_images(folder, small, decibels):
    fit = begin(folder, extend=True, refine=40)
    fit.training.decibels = decibels
    base = {name: tensor.clone() for name, tensor in fit.network.base.state_dict().items()}
    before = distances(fit)
    assert before[0] == pytest.approx(before[1], rel=0.2)
    fit.run()
    after = distances(fit)
    assert all(torch.equal(tensor, base[name]) for name, tensor in fit.network.base.state_dict().items())
    assert after[0] == before[0]
    assert after[1] < before[1]
    assert set(fit.results) == {"refine", "mask"}


def test_in_decibels_each_crop_counts_alike():
    """Of two crops with errors of 30 and of 3 levels, both a tenth smaller gain as much."""
    wanted = torch.rand(2, 3, 8, 8)
    errors = torch.tensor([30.0, 3.0])[:, None, None, None] * torch.ones(2, 3, 8, 8).mul(1 / 255)
    gains = []
    for which in ((0.9, 1.0), (1.0, 0.9)):
        smaller = wanted + errors * torch.tensor(which)[:, None, None, None]
        gains.append(float(fitting.decibels(wanted + errors, wanted) - fitting.decibels(smaller, wanted)))
    assert gains[0] == pytest.approx(-10 * np.log10(0.9), rel=1e-3)  # half of 20 log10, for one of two
    assert gains[1] == pytest.approx(gains[0], rel=0.02)
    grey, blue = torch.full((1, 3, 8, 8), 0.1), torch.zeros(1, 3, 8, 8)
    blue[:, 2] = 0.1
    assert fitting.decibels(grey, torch.zeros(1, 3, 8, 8)) > fitting.decibels(blue, torch.zeros(1, 3, 8, 8)) + 10


def test_the_published_rfdn_is_extended_by_the_halves_of_the_paper(folder, small):
    """Its Refine-Net returns the coarse image at first, and only its trunk learns."""
    teacher = recognise(originals.rfdn(2, blocks=2, nf=50)[0], "rfdn", input_range="0..255")
    with torch.no_grad():  # an image of photographs' values
        teacher.body.upsampler[0].weight.mul_(0.02)
        teacher.body.upsampler[0].bias.add_(100)
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, True)
    assert extended.fits_the_paper(teacher, 2)
    assert not extended.fits_the_paper(teacher, 3)
    assert not extended.fits_the_paper(teacher_of("rfdn of 0..1"), 1)
    network = extended.extended(teacher, 1, 4, train[0])
    assert network.config.network == "rfdn"
    material = Material(train, held_out, folder / "state", 1.0, SMALL)
    fit = Fitting(None, network, material, {"refine": 30, "mask": 4})
    before, tail = distances(fit), network.refine.conv2.weight.clone()
    lr = fit.held_out[0][0]
    assert torch.allclose(network.coarse(lr)[0], teacher(lr), atol=1e-5)
    assert before[1] == pytest.approx(before[0], rel=1e-4)
    fit.run()
    after = distances(fit)
    assert after[0] == before[0]
    assert after[1] < 0.98 * before[1]
    assert torch.equal(network.refine.conv2.weight, tail)


@pytest.mark.parametrize("step", ["base", "joint", "mask"])
def test_a_stopped_conversion_goes_on_to_the_same_weights(folder, small, monkeypatch, step):
    whole = begin(folder, "whole")
    whole.run()
    stopped, save = begin(folder, "stopped"), loop.save_state

    def stop_after(path: Path, state: dict) -> None:
        save(path, state)
        if path.stem == step and state["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    monkeypatch.undo()
    stopped.finish_early()
    again = begin(folder, "stopped")
    again.run()
    assert again.results == whole.results
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name


def mga(folder: Path, *arguments: object) -> int:
    options = [str(folder / "published.pth"), "-o", str(folder / "out.safetensors"), "--images", str(folder / "images")]
    return main(["convert", *options, "--set", "crop=16", "--set", "batch=2", *map(str, arguments)])


@pytest.mark.parametrize("way", [["--split", "1+2"], ["--extend", "2"], ["--upsampler", "copied"], []])
def test_the_command_writes_a_model_that_upscales(folder, small, capsys, way):
    original = (folder / "published.pth").read_bytes()
    assert mga(folder, "--minutes", "0.01", "--patch-size", "4", *way) == 0
    assert (folder / "published.pth").read_bytes() == original
    facts = read_metadata(folder / "out.safetensors")
    assert facts["config"].network == "msrresnet-split"
    assert facts["config"].split == {"--split": (1, 2), "--extend": (3, 2)}.get(way[0] if way else "", (2, 1))
    light = {} if way in (["--extend", "2"], ["--upsampler", "copied"]) else {"light": True}
    assert facts["config"].base == {"channels": 8} | light
    assert "published.pth" in facts["licence"]["weights"]
    assert facts["training"]["finished"] != "stopped early"
    assert 0 < facts["training"]["mask_unit"] < 0.2
    image = np.asarray(Image.open(folder / "images/0.png"))
    network = load_model(folder / "out.safetensors")
    for mode, variant in (("masked", "masked"), ("dense", "decomposed")):
        k = {"k": 20} if mode == "masked" else {}
        model = MaskGuidedSR.from_pretrained(folder / "out.safetensors", mode=mode, dtype="float32", **k)
        lr = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            wanted = network(lr, k=20, variant=variant)[0].permute(1, 2, 0).mul(255).round()
        found = model.upscale(image)
        assert found.shape == (96, 80, 3)
        assert (torch.from_numpy(found).float() - wanted).abs().max() <= 1


def test_ctrl_c_leaves_a_model_that_upscales(folder, small, monkeypatch, capsys):
    step = Fitting._step

    def stop(self, name, state, iterations=None):
        if name == "joint":
            raise KeyboardInterrupt
        step(self, name, state, iterations)

    monkeypatch.setattr(Fitting, "_step", stop)
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 130
    assert "goes on from" in capsys.readouterr().err
    assert read_metadata(folder / "out.safetensors")["training"]["finished"] == "stopped early"
    assert not (folder / "out.state/quick.state").exists()
    model = MaskGuidedSR.from_pretrained(folder / "out.safetensors", k=3, dtype="float32")
    image = np.asarray(Image.open(folder / "images/0.png"))
    coarse = MaskGuidedSR.from_pretrained(folder / "out.safetensors", k=0, dtype="float32").upscale(image)
    assert (model.upscale(image) != coarse).any()


def test_two_conversions_are_not_at_work_in_one_folder(folder, small, monkeypatch, capsys):
    ended, real = [], Fitting._step

    def meanwhile(self, *arguments):
        if not ended:
            ended.append(0)  # before the second one comes here
            ended.append((mga(folder, "--minutes", "0.01"), capsys.readouterr().err))
        return real(self, *arguments)

    monkeypatch.setattr(Fitting, "_step", meanwhile)
    assert mga(folder, "--minutes", "0.01") == 0
    code, error = ended[1]
    assert code == 1
    assert "mga: convert: another run is at work in " in error
    assert error.endswith("; wait until it has ended, or choose another -o\n")
    assert (folder / "out.safetensors").exists()


def test_stopped_twice_writes_nothing(folder, small, monkeypatch):
    def stop(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fitting, "_step", stop)
    assert mga(folder, "--minutes", "0.01") == 130
    assert not (folder / "out.safetensors").exists()


@pytest.mark.parametrize("way", ["split", "extend"])
def test_the_report_compares_result_and_original(folder, small, way):
    arguments = {"split": ["--split", "2+1"], "extend": ["--extend", "1"]}[way]
    (folder / "page.html").write_text("of a conversion that was stopped")
    assert mga(folder, "--minutes", "0.01", "--report", folder / "page.html", "--model-scale", "2", *arguments) == 0
    page = (folder / "page.html").read_text()
    assert "<!doctype html>" in page.lower()
    assert "published.pth" in page
    assert ("against HR" in page) == (way == "extend")  # whose images are HR images


@pytest.mark.parametrize("refined", [29.9, 30.1])
def test_an_extension_that_gains_nothing_says_so(folder, small, capsys, monkeypatch, refined):
    monkeypatch.setattr(Fitting, "_scores", lambda *_: (30.0, refined))
    assert mga(folder, "--minutes", "0.01", "--extend", "1") == 0
    assert ("stay with the original" in capsys.readouterr().err) == (refined < 30)


@pytest.mark.parametrize(("last", "time", "pays"), [(45.5, 0.8, True), (44.5, 0.8, False), (45.5, 0.95, False)])
def test_a_split_says_whether_it_pays(folder, small, capsys, monkeypatch, last, time, pays):
    """By the first share that is near enough to the original, and faster."""
    shares = split_curve.SHARES
    of_share = dict(zip(shares, [30.0] * (len(shares) - 2) + [last, 60.0], strict=True))
    seconds = [2.0, *([1.0] * (len(shares) - 2)), 2 * time, 2.1]
    monkeypatch.setattr(split_curve, "_db", lambda model, *_: of_share[model.settings.fraction])
    monkeypatch.setattr(split_curve, "best_of", lambda runs: seconds)
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 0
    printed = capsys.readouterr()
    verdict = f"it pays: {last} dB to the published network in {time:.2f} of its time"
    assert (verdict if pays else "it does not pay: 45") in printed.out
    assert ("note: this split does not pay" in printed.err) == (not pays)
    facts = read_metadata(folder / "out.safetensors")["training"]
    assert facts["pays"] == pays
    assert facts["curve"][-2] == {"share": shares[-2], "db": last, "time": time}


def test_the_curve_of_a_split_is_what_upscaling_does(folder, small):
    teacher = recognise(torch.load(folder / "published.pth", weights_only=True), "published.pth")
    network = halves(teacher, (2, 1), 4)
    images = [np.asarray(Image.open(folder / f"images/{number}.png")) for number in (0, 3)]
    points = split_curve.SplitCurve(network, teacher, images).points
    whole = [np.asarray(MaskGuidedSR(teacher).upscale(image)) for image in images]
    for point in points:
        made = [np.asarray(MaskGuidedSR(network, fraction=point.share).upscale(image)) for image in images]
        assert point.db == pytest.approx(np.mean([metric(*pair) for pair in zip(made, whole, strict=True)]), abs=1e-6)
        assert point.time is not None
        assert point.time > 0
    assert points[-1].db > points[0].db


def metric(made: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.square(luma(made) - luma(wanted)).mean(), 1e-5))


def test_a_state_of_another_conversion_is_refused(folder, small, capsys):
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 0
    assert mga(folder, "--minutes", "0.01", "--split", "1+2") == 1
    assert "holds a run with split = [2, 1], this one has [1, 2]" in capsys.readouterr().err
    record = folder / "out.state/conversion.json"
    assert json.loads(record.read_text())["split"] == [2, 1]
    image = np.asarray(Image.open(folder / "images/5.png"))  # the last is held out
    Image.fromarray(255 - image).save(folder / "images/5.png")
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 1
    assert "holds a run with held-out images = " in capsys.readouterr().err
    Image.fromarray(image).save(folder / "images/5.png")
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 0
    record.write_text(json.dumps({"split": [2, 1]}))
    capsys.readouterr()
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 1
    assert "holds a run of an older version, which noted only a part" in capsys.readouterr().err


def test_the_range_of_the_original_is_a_part_of_the_conversion(folder, small, capsys):
    """One file, two networks: which it is, the options say."""
    torch.save(dict(tame(originals.imdn(2)[0], "upsampler.0")), folder / "published.pth")
    assert mga(folder, "--minutes", "0.01", "--split", "1+1", "--input-range", "0..1") == 0
    assert mga(folder, "--minutes", "0.01", "--split", "1+1", "--input-range", "0..255") == 1
    assert "holds a run with original.input_range = 0..1, this one has 0..255; go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "3+3"], "--split 3+3 is not the 3 blocks of this msrresnet; possible: 1+2, 2+1"),
        (["--split", "0+3"], "split must be the blocks"),
        (["--extend", "0"], "--extend takes a number of blocks, 1 to 64, or another network, a file or a name"),
        (["--extend", "1", "--upsampler", "light"], "--upsampler is for --split"),
        (["--minutes", "-1"], "--minutes takes a positive number, got '-1'"),
        (["--minutes", "nan"], "--minutes takes a positive number, got 'nan'"),
        (["--model-scale", "4"], "it is for x2, not for scale=4"),
        (["--images", "{folder}/none"], "there is no folder"),
        (["--images", "{folder}/empty"], "holds 0 images"),
        (["--images", "{folder}/tiny"], "none with sides of 16 pixels or more"),
        (["--images", "{folder}/tiny", "--extend", "1"], "none with sides of 32 pixels or more"),
        (["--images", "{folder}/broken"], "convert: "),
        (["--hr", "{folder}/images"], "--hr is for the report"),
        (["--report", "{folder}/empty"], "empty is a folder; name a file"),
        (["--report", "{folder}/none/page.html"], "its folder does not exist"),
        (["-o", "{folder}/out.pth"], "the result is a .safetensors file"),
    ],
)
def test_refusals_are_one_sentence_and_write_nothing(folder, small, capsys, arguments, said):
    for name in ("empty", "tiny", "broken"):
        (folder / name).mkdir()
    Image.fromarray(np.zeros((12, 40, 3), np.uint8)).save(folder / "tiny/a.png")
    (folder / "broken/a.png").write_bytes(b"no image")
    assert mga(folder, *(argument.format(folder=folder) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "out.safetensors").exists()
    assert not (folder / "out.state").exists()


def test_networks_that_cannot_be_converted_are_refused(folder, small, capsys):
    save_model(folder / "guided.safetensors", begin(folder).network, {}, {})
    torch.save(dict(originals.fsrcnn_classic(2, planes=3)[0]), folder / "fsrcnn.pth")
    torch.save(dict(originals.msrresnet(2, blocks=1)[0]), folder / "one.pth")
    torch.save(dict(originals.imdn(2)[0]), folder / "imdn.pth")
    for name, options, said in (
        ("guided.safetensors", [], "is mask-guided already"),
        ("fsrcnn.pth", ["--input-range", "0..1"], "which"),
        ("imdn.pth", ["--upsampler", "light", "--input-range", "0..1"], "imdn is one convolution already"),
        ("one.pth", [], "has 1 block, which cannot be split; use --extend"),
    ):
        output = str(folder / "other.safetensors")
        arguments = [str(folder / name), "-o", output, "--images", str(folder / "images"), *options]
        assert main(["convert", *arguments]) == 1, name
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    guided = str(folder / "guided.safetensors")
    assert main(["convert", guided, "-o", guided, "--images", str(folder / "images")]) == 1
    assert "is the original" in capsys.readouterr().err


def test_a_conversion_with_other_settings_does_not_go_on(folder, small, capsys):
    assert mga(folder, "--minutes", "0.01", "--split", "2+1") == 0
    assert mga(folder, "--minutes", "0.01", "--split", "2+1", "--set", "rates.mask=0.002") == 1
    assert "holds a run with rates.mask = none, this one has 0.002" in capsys.readouterr().err
