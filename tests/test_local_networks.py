"""RRDBNet, SRVGGNetCompact, SPAN, EDSR, RCAN: every spelling is the network that was written down a second time."""

from __future__ import annotations

import functools
import re
import warnings

import local_originals as originals
import numpy as np
import pytest
import torch
from network_zoo import photographs
from safetensors.torch import save_file
from test_span_trials import enlarging_span

from mga_kernels import MaskGuidedSR
from mga_kernels.architectures.span.published import IMAGENET, KNOWN
from mga_kernels.checkpoints import load_checkpoint, recognise
from mga_kernels.errors import CheckpointError, CheckpointNote, InputError
from mga_kernels.networks import WholeConfig, WholeNetwork
from mga_kernels.networks.whole import SCALES


def tempered(original: originals.Original) -> originals.Original:
    """With pictures around a half, most of which is not clamped."""
    state, forward = original
    last = [name for name in state if name.endswith(".weight") and state[name].ndim == 4][-1]
    made = forward(photographs(16, 16))
    for name in (last, last.replace("weight", "bias")):
        state[name] *= 0.15 / float(made.std())
    state[last.replace("weight", "bias")] += 0.5 - float(forward(photographs(16, 16)).mean())
    return state, forward


def rrdbnet(**settings) -> originals.Original:
    return tempered(originals.rrdbnet(**settings))


CASES = {
    "x4": ({}, 4),
    "x2": ({"enlargements": 1}, 2),
    "x1": ({"enlargements": 0}, 1),
    "x8": ({"enlargements": 3, "blocks": 1}, 8),
    "x16": ({"enlargements": 4, "blocks": 1}, 16),
    "one block": ({"blocks": 1}, 4),
    "narrow": ({"nf": 6, "gc": 3, "blocks": 11}, 4),
    "x2, of blocks of 2": ({"unshuffled": 2}, 2),
    "x1, of blocks of 4": ({"unshuffled": 4}, 1),
    "x1, of blocks of 2": ({"enlargements": 1, "unshuffled": 2}, 1),
    "x4, of blocks of 2": ({"enlargements": 3, "unshuffled": 2}, 4),
    "ESRGAN+": ({"plus": True}, 4),
}


def check(network: WholeNetwork, forward: originals.Forward, size: tuple[int, int] = (15, 22)) -> None:
    image = photographs(*size)
    expected = forward(image)
    assert expected.std() > 0.05, "a flat picture proves nothing"
    assert (network(image) - expected).abs().max() < 2e-5 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_every_spelling_of_rrdbnet_gives_the_same_picture(case):
    settings, scale = CASES[case]
    state, forward = rrdbnet(**settings)
    enlargements, blocks = settings.get("enlargements", 2), settings.get("blocks", 2)
    old = originals.esrgan(state, enlargements, blocks)
    spellings = {"ESRGAN+" if settings.get("plus") else "ESRGAN": old}
    spellings |= {"without its first word": {name.removeprefix("model."): t for name, t in old.items()}}
    spellings |= {"Real-ESRGAN": dict(state), "BSRGAN": originals.bsrgan(state)}
    for spelling, renamed in spellings.items():
        network = recognise(renamed, spelling)
        config = network.config
        assert (config.network, config.scale, config.blocks, config.input_range) == ("rrdbnet", scale, blocks, "0..1")
        sizes = ((15, 22), (9, 10))  # no multiples of 4, one side no multiple of 2
        for size in sizes[scale > 4 :]:
            check(network, forward, size)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("convolutions", "nf"), [(1, 6), (4, 8), (16, 5)])
def test_compact(scale, convolutions, nf):
    state, forward = tempered(originals.compact(scale, convolutions, nf))
    network = recognise(state, "it")
    config = network.config
    assert (config.network, config.scale, config.blocks, config.settings) == (
        "compact",
        scale,
        convolutions,
        {"channels": nf},
    )
    check(network, forward)
    one = {name: t[:1] if t.ndim == 1 and "bias" not in name else t for name, t in state.items()}
    assert recognise(one, "it").body.body[1].weight.shape == (nf,), "one slope for all is one for each"


@pytest.mark.parametrize(("scale", "unshuffled"), [(4, 1), (2, 1), (8, 1), (2, 2), (1, 4), (1, 1)])
def test_rcan_as_the_community_trains_it(scale, unshuffled):
    state, forward = tempered(originals.rcan(scale, unshuffled))
    network = recognise(state, "it")
    config = network.config
    assert (config.network, config.scale, config.input_range) == ("rcan", scale, "0..1")
    assert config.settings["mean"] == (0.0, 0.0, 0.0)
    assert config.settings.get("unshuffled", 1) == unshuffled
    check(network, forward)
    model = MaskGuidedSR(network, device="cpu", dtype="float32")
    picture = (photographs(15, 22)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    expected = forward(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0)
    assert np.abs(model.upscale(picture) - (255 * expected.clamp(0, 1)).round().numpy()).max() <= 1


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("basicsr", [False, True])
def test_edsr(scale, basicsr):
    state, forward = originals.edsr(scale, basicsr, blocks=3)
    last = "conv_last" if basicsr else "tail.1"
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name] *= 40 / 255 / float(forward(photographs(16, 16)).std())
    network = recognise(state, "it")
    config = network.config
    assert (config.network, config.scale, config.blocks, config.input_range) == ("edsr", scale, 3, "0..255")
    assert "residual" not in config.settings
    check(network, forward)


def test_edsr_that_is_large_and_one_of_values_in_0_to_1():
    """No tensor says by what the large network multiplies what its blocks make; the mean colour says the range."""
    for basicsr in (False, True):
        state, forward = originals.edsr(2, basicsr, nf=256, blocks=1, residual=0.1)
        network = recognise(state, "it")
        assert network.config.settings["residual"] == 0.1
        check(network, forward, (6, 7))
    state, forward = originals.edsr(2, False, largest=1.0)
    network = recognise(state, "it")
    assert network.config.input_range == "0..1"
    check(network, forward)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_edsr_of_mmagic(scale):
    """It is trained in 0..1, less the same mean colour."""
    state, forward = originals.edsr(scale, True, largest=1.0)
    found = {
        re.sub(r"upsample\.(\d)", lambda m: f"upsample.{int(m[1]) // 2}.upsample_conv", n): state[n] for n in state
    }
    network = recognise(found, "it")
    assert (network.config.scale, network.config.input_range) == (scale, "0..1")
    check(network, forward)


def test_what_fits_edsr_and_has_more_is_refused():
    state = dict(originals.edsr(2, False)[0])
    with pytest.raises(CheckpointError, match=r"looks like EDSR, but tensor tail\.2\.weight is"):
        recognise(state | {"tail.2.weight": torch.zeros(3, 3, 3, 3)}, "it")
    with pytest.raises(CheckpointError, match="looks like EDSR, but the mean that it takes off is not the one"):
        recognise(state | {"add_mean.bias": torch.zeros(3)}, "it")


def with_noise(state: dict[str, torch.Tensor], convolutions: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "another layer": state | {"head.weight": torch.zeros(8, 3, 3, 3)},
        "a layer of another network": state | {"body.3.conv.weight": torch.zeros(8, 8, 3, 3)},
        "a normalisation": state | {"body.1.bias": torch.zeros(8)},
        "no last layer": {n: t for n, t in state.items() if not n.startswith(f"body.{2 * convolutions + 2}.")},
    }


def test_what_only_resembles_compact_is_refused():
    state, _ = originals.compact(2, 3)
    for what, changed in with_noise(dict(state), 3).items():
        with pytest.raises(CheckpointError, match=r"SRVGGNetCompact, but|of no network that is known"):
            recognise(changed, what)
    with pytest.raises(CheckpointError, match="makes 75 channels of 3, which is not x1, x2, x3, x4, x8 or x16"):
        recognise(dict(originals.compact(5, 2)[0]), "it")


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("known", KNOWN[:3], ids=lambda known: known.input_range)
def test_span_as_it_is_trained_and_folded(known, scale):
    value_range, mean = known.settings["value_range"], known.settings["mean"]
    state, forward = tempered(originals.span(scale, 8, value_range, mean, gain=2 / value_range))
    for spelling, tensors in (("as it is trained", dict(state)), ("folded", originals.span_folded(state))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointNote)
            network = recognise(tensors, spelling, input_range=known.input_range)
        network.body.mean = mean  # which nothing tells, of random weights
        assert network.config.settings["value_range"] == value_range
        assert network.config.blocks == 6
        image = photographs(13, 17)
        expected = forward(image)
        assert expected.std() > 0.05
        assert (network(image) - expected).abs().max() < 1e-4 * max(1, float(expected.abs().max()))


WRAPPED = {
    "Real-ESRGAN": lambda state: {"params_ema": state, "params": {name: t + 1 for name, t in state.items()}},
    "traiNNer": lambda state: {"params": state},
    "a training": lambda state: {"iter": 7, "netG": {f"module.{name}": t for name, t in state.items()}},
    "lightning": lambda state: {"state_dict": {f"generator.{name}": t for name, t in state.items()}},
    "half precision": lambda state: {name: t.half() for name, t in state.items()},
}


@functools.cache
def small_networks() -> dict[str, tuple[dict, originals.Forward]]:
    named = {
        "rrdbnet": rrdbnet(blocks=1),
        "compact": tempered(originals.compact(2)),
        "span": tempered(originals.span(2, gain=2 / 255)),
    }
    old, forward = rrdbnet(blocks=1, enlargements=1)
    return named | {"rrdbnet, ESRGAN": (originals.esrgan(old, 1, 1), forward)}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("name", ["rrdbnet", "rrdbnet, ESRGAN", "compact", "span"])
def test_wherever_a_training_has_left_them(tmp_path, name, wrapping):
    state, forward = small_networks()[name]
    torch.save(WRAPPED[wrapping](dict(state)), tmp_path / "net.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointNote)
        model = MaskGuidedSR.from_checkpoint(tmp_path / "net.pth", device="cpu", dtype="float32", runtime="pytorch")
    assert model.network == name.partition(",")[0]
    image = photographs(11, 12)
    tolerance = 0.03 if wrapping == "half precision" else 1e-4
    assert (model(image) - forward(image).clamp(0, 1)).abs().max() < tolerance
    assert all(p.dtype == torch.float32 for p in model.model.parameters())


@pytest.mark.parametrize(("height", "width"), [(24, 20), (17, 29), (5, 3), (1, 1), (2, 7)])
@pytest.mark.parametrize("settings", [{"blocks": 1, "unshuffled": 4}, {"blocks": 1, "unshuffled": 2}], ids=str)
def test_photographs_of_any_size_run_through_unshuffled_networks(settings, height, width):
    state, forward = rrdbnet(**settings)
    model = MaskGuidedSR(recognise(state, "it"), device="cpu", dtype="float32", runtime="pytorch")
    picture = (photographs(height, width)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    found = model.upscale(picture)
    assert found.shape == (height * model.scale, width * model.scale, 3)
    if min(height, width) >= 4:
        expected = forward(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0)
        assert np.abs(found - (255 * expected.clamp(0, 1)).round().numpy()).max() <= 1


@pytest.mark.parametrize(
    ("state", "size"),
    [
        (rrdbnet(blocks=1, nf=32)[0], (121, 117)),
        (rrdbnet(blocks=1, nf=32, unshuffled=2)[0], (301, 307)),
        (tempered(originals.compact(2))[0], (121, 117)),
    ],
    ids=["rrdbnet", "unshuffled", "compact"],
)
def test_tiles_show_no_seams(state, size):
    network = recognise(state, "it")
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    settings = {"device": "cpu", "dtype": "float32", "runtime": "pytorch"}
    whole = MaskGuidedSR(network, **settings)
    needed = whole._runner.planner.bytes_needed(*size, 0)
    cut = MaskGuidedSR(network, memory=needed // 2, **settings)
    difference = np.abs(cut.upscale(picture).astype(int) - whole.upscale(picture))
    assert "tiles" in cut.info()["prepared"][0]
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.filterwarnings("ignore::mga_kernels.errors.CheckpointNote")
@pytest.mark.parametrize("name", ["rrdbnet", "compact", "span"])
def test_how_far_they_look(name):
    """No pixel beyond the receptive field changes a result, and one within it does."""
    network = recognise(small_networks()[name][0], "it").double()
    reach, scale = network.body.receptive_field, network.config.scale
    image = torch.rand(1, 3, 3, 2 * reach + 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changed = image.clone()
    changed[..., 0] += 1
    difference = (network.body(changed)[0] - network.body(image)[0]).abs().amax((0, 1, 2))
    assert difference[(reach + 1) * scale :].max() == 0
    assert difference[: reach * scale].max() > 0


def test_scales():
    assert SCALES == (1, 2, 3, 4, 8, 16)
    with pytest.raises(InputError, match="scale 5 is not supported"):
        WholeConfig("rrdbnet", 5)
    with pytest.raises(CheckpointError, match="it is for x8, not for scale=2"):
        recognise(dict(rrdbnet(enlargements=3, blocks=1)[0]), "it", scale=2)


# File -> network, scale, blocks, channels.
SHARED = {
    "RealESRGAN_x4plus": ("rrdbnet", 4, 23, 64),
    "realesr-general-x4v3": ("compact", 4, 32, 64),
    "realesr-animevideov3": ("compact", 4, 16, 64),
    "spanx4_ch48": ("span", 4, 6, 48),
    "spanx4_ch48_full": ("span", 4, 6, 48),
    "spanx2_ch48": ("span", 2, 6, 48),
    "span-ntire_x4_ch28": ("span", 4, 6, 28),
    "2xHFA2kSPAN_27k": ("span", 2, 6, 48),
    "4xSPANkendata": ("span", 4, 6, 48),
}


@pytest.mark.parametrize("stem", SHARED)
def test_published_files(shared_data, tmp_path, stem):
    """By what is in them; as they are, without their name, and in half precision."""
    path = shared_data / f"data/checkpoints/{stem}.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = load_checkpoint(path)
        config = network.config
        assert (config.network, config.scale, config.blocks, config.settings["channels"]) == SHARED[stem]
        renamed = load_checkpoint(_half(path, tmp_path / "a.bin"))
    assert renamed.config == config
    if config.network == "span":
        expected = (1.0, IMAGENET) if "kendata" in stem else (255.0, originals.DIV2K)
        assert (config.settings["value_range"], config.settings["mean"]) == expected


def _half(path, target):
    from safetensors.torch import load_file

    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, target)
    return target


def test_the_trained_span_is_the_folded_one(shared_data):
    """Of published weights, in float16 at that: the file that was folded by its authors."""
    files = (f"data/checkpoints/spanx4_ch48{stem}.safetensors" for stem in ("", "_full"))
    pictures = [load_checkpoint(shared_data / file)(photographs(24, 24)) for file in files]
    assert (pictures[0] - pictures[1]).abs().max() < 1e-3


@pytest.mark.parametrize("photograph", [True, False])
def test_values_that_half_precision_cannot_hold_are_noticed(photograph):
    """SPAN multiplies values of 255: where they do not fit into float16, a wider type is run, with a warning."""
    state = enlarging_span(255.0, originals.DIV2K, 2)
    state["block_1.c1_r.eval_conv.weight"][:3, :3, 1, 1] = 6000 * torch.eye(3)  # float16 ends at 65,504
    network = recognise(state, "it")
    image = photographs(12, 14)[:1]
    picture = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    expected, model = (
        MaskGuidedSR(network, device="cpu", dtype=dtype, runtime="pytorch") for dtype in ("float32", "float16")
    )
    with pytest.warns(UserWarning, match="not finite in float16"):
        found = model.upscale(picture) if photograph else model(image)
    assert model.dtype != torch.float16
    if photograph:
        assert np.abs(found.astype(int) - expected.upscale(picture)).max() <= 8
    else:
        assert (found - expected(image)).abs().max() < 0.03
