"""Published networks: recognised by their tensors, computed as they were written, and run by the engine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import originals
import pytest
import torch
import torch.nn.functional as F
from network_zoo import rfdn_of_trained_base
from PIL import Image
from safetensors.torch import save_file

from mga.cli import main
from mga.evaluation.testsets import find_pairs, load_pair
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, recognise
from mga_kernels.checkpoints.native import load_native
from mga_kernels.engine.pictures import to_tensor
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks.colour import decode, encode

RGB = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(3))
CASES = {
    "pan x2": (originals.pan(2), {"scale": 2}, ("pan", 2, 2)),
    "pan x3": (originals.pan(3), {"scale": 3}, ("pan", 3, 2)),
    "pan x4": (originals.pan(4, blocks=3), {}, ("pan", 4, 3)),
    "rfdn x4": (originals.rfdn(4), {"input_range": "0..255"}, ("rfdn", 4, 2)),
    "rfdn x3": (originals.rfdn(3, blocks=3), {"input_range": "0..1"}, ("rfdn", 3, 3)),
    "imdn x4": (originals.imdn(4), {"input_range": "0..1"}, ("imdn", 4, 2)),
    "msrresnet x2": (originals.msrresnet(2), {}, ("msrresnet", 2, 2)),
    "msrresnet x4": (originals.msrresnet(4, blocks=3), {}, ("msrresnet", 4, 3)),
    "msrresnet x3, BasicSR": (originals.msrresnet(3, basicsr=True), {}, ("msrresnet", 3, 2)),
    "msrresnet x4, MMagic": (originals.msrresnet_of_mmagic(4), {}, ("msrresnet", 4, 2)),
    "srresnet x4": (originals.srresnet(), {}, ("srresnet", 4, 2)),
    "srresnet, batch norm": (originals.srresnet(batches=True), {}, ("srresnet", 4, 2)),
    "srresnet of the paper": (originals.srresnet_of_the_paper(), {}, ("srresnet", 4, 2)),
    "srresnet of the paper, long": (originals.srresnet_of_the_paper(2, True, 3), {}, ("srresnet", 2, 3)),
    "srresnet of the paper, x8": (originals.srresnet_of_the_paper(8), {}, ("srresnet", 8, 2)),
    "rcan x2": (originals.rcan(2), {}, ("rcan", 2, 2)),
    "rcan x4": (originals.rcan(4, groups=3), {}, ("rcan", 4, 3)),
    "rcan x3, BasicSR": (originals.rcan(3, basicsr=True), {}, ("rcan", 3, 2)),
    "fsrcnn, ClassSR": (originals.fsrcnn_one_activation(True), {"input_range": "0..1"}, ("fsrcnn", 4, 3)),
    "fsrcnn, names": (originals.fsrcnn_one_activation(False), {"scale": 4}, ("fsrcnn", 4, 3)),
    "fsrcnn, luma": (originals.fsrcnn_classic(3), {"scale": 3, "input_range": "16..235"}, ("fsrcnn", 3, 2)),
    "fsrcnn, luma, in parts": (originals.fsrcnn_in_parts(2, 4), {"scale": 2, "input_range": "0..1"}, ("fsrcnn", 2, 4)),
    "fsrcnn, RGB": (
        originals.fsrcnn_classic(2, 3, maps=4),
        {"scale": 2, "colour": "rgb", "input_range": "0..255"},
        ("fsrcnn", 2, 4),
    ),
}
RANGES = {"rcan": "0..255", "fsrcnn, names": "clipped"}  # where it is not said, and not 0..1


@pytest.mark.parametrize("name", CASES)
def test_a_spelling_is_the_network_that_was_published(name):
    (state, forward), options, expected = CASES[name]
    network = recognise(state, "checkpoint: it", **options)
    config = network.config
    assert (config.network, config.scale, config.blocks) == expected
    named = next((given for start, given in RANGES.items() if name.startswith(start)), "0..1")
    assert config.input_range == options.get("input_range", named)
    assert config.colour == ("y" if "luma" in name else "ycbcr" if "names" in name else "rgb")
    given = encode(RGB, config.colour, config.input_range)
    wanted = forward(given)
    found = network.body(given)[0]
    assert wanted.std() > 1e-3 * wanted.abs().max()
    assert (found - wanted).abs().max() <= 2e-5 * wanted.abs().max()
    assert torch.equal(network(RGB), decode(found, config.colour, config.input_range, RGB, config.scale))


def test_statistics_of_an_instance_normalisation_are_not_used():
    """The first releases of PyTorch kept some."""
    state, forward = originals.srresnet()
    for name in [name.removesuffix("weight") for name in state if ".in" in name or "bn_mid" in name]:
        if not name.endswith("bias"):
            state.statistics(name.removesuffix("."), 8)
    network = recognise(state, "it")
    assert (network.body(RGB)[0] - forward(RGB)).abs().max() < 2e-5 * forward(RGB).abs().max()


def shipped_rfdn() -> dict[str, torch.Tensor]:
    """The published RFDN x4."""
    return dict(load_native("rfdn-x4").body.state_dict())


def test_the_range_is_found_by_trial():
    state = shipped_rfdn()
    assert recognise(state, "it").config.input_range == "0..255"
    for name, factor in (("fea_conv.weight", 255), ("upsampler.0.weight", 1 / 255), ("upsampler.0.bias", 1 / 255)):
        state[name] = state[name] * factor
    assert recognise(state, "it").config.input_range == "0..1"
    state["upsampler.0.weight"] = state["upsampler.0.weight"] * 3
    with pytest.raises(CheckpointError, match=r"it is RFDN .* made for values in 0..1 or 0..255.*input_range="):
        recognise(state, "it")


def linear_fsrcnn(scale: int, sub_pixel: bool = False, black: float = 0.0) -> dict[str, torch.Tensor]:
    """A classic FSRCNN of luma that enlarges linearly from ``black`` to 1; beyond them, less."""
    d, s = 4, 3
    state = {
        "first_part.0.weight": torch.zeros(d, 1, 5, 5),
        "first_part.0.bias": torch.full((d,), -black),
        "first_part.1.weight": torch.full((d,), 0.5),
        "mid_part.0.weight": -torch.eye(s, d)[..., None, None],
        "mid_part.0.bias": torch.full((s,), 1 - black),
        "mid_part.1.weight": torch.full((s,), 0.5),
        "mid_part.2.weight": torch.zeros(s, s, 3, 3),
        "mid_part.2.bias": torch.ones(s),
        "mid_part.3.weight": torch.ones(s),
        "mid_part.4.weight": torch.eye(d, s)[..., None, None],
        "mid_part.4.bias": torch.zeros(d),
        "mid_part.5.weight": torch.ones(d),
        "last_part.weight": torch.zeros(d, 1, 9, 9),
        "last_part.bias": torch.zeros(1),
    }
    state["first_part.0.weight"][:, 0, 2, 2] = 1
    state["mid_part.2.weight"][range(s), range(s), 1, 1] = -1
    if sub_pixel:
        state["last_part.weight"][0, 0, 4 : 4 + scale, 4 : 4 + scale] = 1
        return state
    tent = (1 - (torch.arange(9) - 4 - (scale - 1) / 2).abs() / scale).clamp(min=0)
    tent = tent / torch.stack([tent[i % scale :: scale].sum() for i in range(9)])  # of x4 it has 9 of 10 taps
    state["last_part.weight"][0, 0] = tent[:, None] * tent
    return state


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scale_and_range_of_luma(scale):
    """The scale is found by trial, since no shape has it; studio luma by what becomes of black."""
    config = recognise(linear_fsrcnn(scale, black=16 / 255), "it").config
    assert (config.scale, config.colour, config.input_range) == (scale, "y", "16..235")
    with pytest.raises(CheckpointError, match=rf"x{scale}, of luma in 16..235 or in 0..1; say which: input_range="):
        recognise(linear_fsrcnn(scale), "it")
    assert recognise(linear_fsrcnn(scale), "it", input_range="0..1").config.scale == scale
    config = recognise(linear_fsrcnn(scale, sub_pixel=True), "it").config
    assert (config.scale, config.input_range) == (scale, "0..1")


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (originals.pan(2)[0], {}, r"PAN \(original\), x2 or x3,.*differences from bicubic.*scale= \(--model-scale\)"),
        (originals.fsrcnn_classic(2, 3)[0], {}, r"colours may be rgb or ycbcr; say which: colour= \(--colour\)"),
        (originals.fsrcnn_classic(2, 1)[0], {"colour": "rgb"}, r"1 colour plane\(s\), which is not colour='rgb'"),
        (originals.pan(4)[0], {"scale": 2}, "it is for x4, not for scale=2"),
        (originals.pan(4)[0], {"input_range": "16..235"}, 'input_range="16..235" is for colour="y"'),
        (
            {"encoder.weight": torch.zeros(5, 2, 3, 3), "b": torch.zeros(7)},
            {},
            r"2 tensors \(encoder.weight, b\), from 2",
        ),
    ],
)
def test_what_the_tensors_leave_open_is_asked_for(state, options, message):
    with pytest.raises(CheckpointError, match=message):
        recognise(state, "checkpoint: it", **options)


@pytest.mark.parametrize("options", [{"colour": "lab"}, {"input_range": "0..7"}, {"scale": 5}])
def test_options_that_do_not_exist(options):
    with pytest.raises(InputError, match="choose one of"):
        recognise(originals.pan(4)[0], "it", **options)


WRAPPINGS = {
    "flat": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema first": lambda state: {"params": {k: v + 1 for k, v in state.items()}, "params_ema": state},
    "nested": lambda state: {"epoch": 3, "model": {"state_dict": state}},
    "DataParallel and compile": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "GAN": lambda state: {f"generator.{k}": v for k, v in state.items()} | {"discriminator.a": torch.ones(3)},
    "lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers(tmp_path, wrapping, suffix):
    state, forward = originals.msrresnet(2)
    path, content = tmp_path / f"model{suffix}", WRAPPINGS[wrapping](dict(state))
    if suffix == ".safetensors":
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            pytest.skip("a safetensors file has no dictionaries in it")
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix == ".pt")
    model = MaskGuidedSR.from_checkpoint(path, device="cpu")
    assert (model.network, model.scale, model.whole) == ("msrresnet", 2, True)
    assert (model(RGB) - forward(RGB).clamp(0, 1)).abs().max() < 1e-5


def checkpoint(tmp_path, state, name="model.pth"):
    torch.save(dict(state), tmp_path / name)
    return tmp_path / name


def photograph(height: int, width: int) -> np.ndarray:
    noise = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=torch.Generator().manual_seed(1))
    soft = F.interpolate(noise, size=(height, width), mode="bilinear")
    return (soft[0].permute(1, 2, 0) * 255).round().byte().numpy()


def expected_bytes(model: MaskGuidedSR, picture: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    return (model(tensor)[0] * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("height", "width"), [(24, 20), (33, 47), (5, 3)])
@pytest.mark.parametrize("name", ["msrresnet x2", "rfdn x4", "fsrcnn, luma", "rcan x2"])
def test_photographs_are_what_tensors_are(tmp_path, name, height, width):
    (state, _), options, _ = CASES[name]
    path = checkpoint(tmp_path, state)
    model = MaskGuidedSR.from_checkpoint(path, device="cpu", dtype="float32", runtime="pytorch", **options)
    picture = photograph(height, width)
    out = np.full((height * model.scale, width * model.scale, 3), 77, np.uint8)
    result = model.upscale(picture, out=out, return_result=True)
    assert result.image is out
    difference = np.abs(out.astype(int) - expected_bytes(model, picture))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert result.refined is None
    assert model.info()["photographs"] == "float32, in PyTorch"


@pytest.mark.parametrize("name", ["msrresnet x2", "fsrcnn, luma"])
def test_tiles_show_no_seams(tmp_path, name):
    (state, _), options, _ = CASES[name]
    settings = {"device": "cpu", "dtype": "float32", "runtime": "pytorch"} | options
    path, picture = checkpoint(tmp_path, state), photograph(150, 170)
    whole = MaskGuidedSR.from_checkpoint(path, **settings)
    needed = whole._runner.planner.bytes_needed(150, 170, 0)
    cut = MaskGuidedSR.from_checkpoint(path, memory=needed // 2, **settings)
    difference = np.abs(cut.upscale(picture).astype(int) - whole.upscale(picture))
    assert "tiles" in cut.info()["prepared"][0]
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("runtime", ["own", "pytorch"])
def test_the_published_rfdn_is_the_base_net_of_the_paper(tmp_path, runtime):
    """The same photograph as -M with K = 0: in convolutions of our own to the byte, while PyTorch scales the image once
    more for a whole network, and so rounds differently."""
    path, picture = checkpoint(tmp_path, shipped_rfdn()), photograph(32, 36)
    settings = {"device": "cpu", "runtime": runtime, "dtype": "auto" if runtime == "own" else "float32"}
    model = MaskGuidedSR.from_checkpoint(path, **settings)
    divided = MaskGuidedSR(rfdn_of_trained_base(), k=0, **settings)
    assert model.info()["photographs"] == divided.info()["photographs"]
    difference = np.abs(model.upscale(picture).astype(int) - divided.upscale(picture))
    assert difference.max() <= (0 if runtime == "own" else 1)
    assert (difference > 0).mean() < 1e-3
    assert torch.equal(model(RGB), divided(RGB, "base"))


def test_openvino_runs_whole_networks(tmp_path):
    pytest.importorskip("openvino")
    (state, _), _, _ = CASES["msrresnet x2"]
    path, picture = checkpoint(tmp_path, state), photograph(37, 45)
    model = MaskGuidedSR.from_checkpoint(path, device="cpu", dtype="float32", runtime="openvino")
    assert "OpenVINO" in model.info()["photographs"]
    difference = np.abs(model.upscale(picture).astype(int) - expected_bytes(model, picture))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    "settings", [{"k": 4}, {"fraction": 0.5}, {"threshold": 0.5}, {"max_ms": 10}, {"mode": "masked"}, {"mode": "auto"}]
)
def test_a_whole_network_has_no_mask(tmp_path, settings):
    path = checkpoint(tmp_path, originals.msrresnet(2)[0])
    remedy = "such as span-x4-regions or what mga convert"
    with pytest.raises(InputError, match=rf"no mask, so {next(iter(settings))} cannot be given.*{remedy}"):
        MaskGuidedSR.from_checkpoint(path, device="cpu", **settings)


@pytest.mark.parametrize("call", [{"k": 3}, {"fraction": 0.1}, {"variant": "base"}, {"selection": "random"}])
def test_calls_that_need_a_mask_are_refused(tmp_path, call):
    model = MaskGuidedSR.from_checkpoint(checkpoint(tmp_path, originals.msrresnet(2)[0]), device="cpu")
    with pytest.raises(InputError, match="whole network, which has no mask"):
        model(RGB, **call)
    with pytest.raises(InputError, match="no mask to show; leave that out"):
        model.explain(photograph(8, 8))
    assert torch.equal(model(RGB, variant="whole"), model(RGB))


def test_files_of_ours_are_taken_too():
    model = MaskGuidedSR.from_checkpoint("fsrcnn-x4", device="cpu", k=2)
    assert (model.whole, model.mode, model.k) == (False, "masked", 2)
    with pytest.raises(InputError, match="colour cannot be given"):
        MaskGuidedSR.from_checkpoint("fsrcnn-x4", colour="rgb")
    with pytest.raises(InputError, match="is divided; choose one of"):
        model(RGB, variant="whole")


def test_commands_take_such_files(tmp_path, capsys):
    path = checkpoint(tmp_path, linear_fsrcnn(2))
    (tmp_path / "hr").mkdir()
    for i in range(2):
        Image.fromarray(photograph(40 + i, 44)).save(tmp_path / f"hr/{i}.png")
    evaluated = ["evaluate", "--model", str(path), "--hr", str(tmp_path / "hr"), "--scale", "2", "--json", "out.json"]
    evaluated[-1] = str(tmp_path / "out.json")
    assert main(evaluated) == 1
    assert "--input-range" in capsys.readouterr().err
    assert main([*evaluated, "--input-range", "0..1"]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["variant"], result["network"], result["k"]) == ("whole", "fsrcnn", None)
    assert result["mean"]["psnr_y"] > 20
    assert main([*evaluated, "--input-range", "0..1", "--variant", "base"]) == 1
    assert "no variants" in capsys.readouterr().err
    source, target = str(tmp_path / "hr/0.png"), tmp_path / "large.png"
    assert main(["upscale", source, "-o", str(target), "--model", str(path), "--input-range", "0..1"]) == 0
    model = MaskGuidedSR.from_checkpoint(path, input_range="0..1")
    np.testing.assert_array_equal(np.asarray(Image.open(target)), model.upscale(photograph(40, 44)))


# The two that take long have their figures by `python bench/published.py` alone.
LONG = {"RealESRGAN_x4plus.safetensors", "spanx4_ch48_full.safetensors"}


@pytest.fixture
def published(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import published

    return published


@pytest.mark.slow
def test_published_files_have_their_figures(published, shared_data):
    """Of the first set that each has, as tensors and as photographs."""
    for name, sets in published.FIGURES.items():
        if sets is not published.UNKNOWN and name not in LONG:
            first = dict([next(iter(sets.items()))])
            (row,) = published.figures_of(shared_data / "data/checkpoints" / name, shared_data, first)
            assert row["within"], row


def test_the_figures_are_those_of_the_manifest(published, shared_data):
    text = (shared_data / "data/MANIFEST.md").read_text()
    for name, sets in published.FIGURES.items():
        assert [figure for figure in sets.values() if figure is not None and f"{figure:g}" not in text] == [], name
    files = (shared_data / "data/checkpoints").glob("*.*")
    assert {path.name for path in files} == published.FIGURES.keys()


def test_ycbcr_in_its_own_convention(shared_data):
    """PSNR over all three planes, of images whose planes are bytes: 31.961 dB on Set5."""
    network = load_checkpoint(shared_data / "data/checkpoints/fsrcnn-ycbcr3_x4_Nhat-Thanh.pth")
    figures, images = [], shared_data / "data/testsets/Set5"
    for pair in find_pairs(images / "HR", images / "LR_bicubic/X4", 4):
        hr, lr = (encode(to_tensor(image), "ycbcr", "clipped") for image in load_pair(*pair, 4))
        hr, lr = ((planes * 255 + 1e-4).floor() / 255 for planes in (hr, lr))
        figures.append(-10 * float((network.body(lr)[0] - hr).square().mean().log10()))
    assert np.mean(figures) == pytest.approx(31.961, abs=0.005)


def test_published_files_are_recognised(shared_data):
    """Without running more than a trial of them."""
    conventions = {
        "ycbcr3": ("ycbcr", "clipped"),
        "Saafke": ("y", "0..1"),
        "fsrcnn_": ("y", "16..235"),
        "rfdn": ("rgb", "0..255"),
    }
    for path in sorted((shared_data / "data/checkpoints").glob("*.pth")):
        config = load_checkpoint(path).config
        assert config.scale == (2 if "_x2_" in path.stem else 4)
        expected = next((c for mark, c in conventions.items() if mark in path.stem), ("rgb", "0..1"))
        assert (config.colour, config.input_range) == expected, path
        assert math.isfinite(config.blocks)
