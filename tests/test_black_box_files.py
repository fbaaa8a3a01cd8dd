"""Files of networks that another library runs: whole, damaged, and without that library; what ``mga convert`` does."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import black_boxes
import numpy as np
import pytest
import torch
from black_boxes import Windowed, refining
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from test_regions import image_of

from mga.cli import main
from mga.conversion import black_box as conversion
from mga.conversion import curve, sight
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, read_metadata
from mga_kernels.checkpoints.black_box import join, save_black_box
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import BlackBoxConfig, Network, WholeConfig, WholeNetwork

MODULE = "mga_kernels.checkpoints.spandrel"


def from_state(state, name):
    """Stands for spandrel: it knows the network of these tests by its tensors."""
    if "first.weight" not in state:
        raise CheckpointError(f"{name} is not loaded by spandrel: unknown")
    side = int(state["side"]) if "side" in state else 4
    settings = {"side": side, "depth": sum(key.startswith("mixing") for key in state), "mean": "mean" in state}
    network = WholeNetwork(refining(**settings | {"place": "place" in state})).eval().requires_grad_(False)
    tensors = {key: tensor for key, tensor in state.items() if key not in ("side", "mean", "place")}
    network.body.load_state_dict(tensors)
    return network


@pytest.fixture
def spandrel(monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(from_state=from_state))


def state_of(**settings):
    state = dict(Windowed(**settings).state_dict())
    state |= {name: torch.ones(1) for name in ("mean", "place") if settings.get(name)}
    return state | {"side": torch.tensor(settings.get("side", 4))}


def saved(path, **changed):
    """A file of a network whose weights are not those that its code starts with."""
    state = {name: tensor if name == "side" else 0.9 * tensor for name, tensor in state_of().items()}
    refine = from_state(state, "it")
    torch.manual_seed(0)
    base = WholeNetwork(WholeConfig("compact", 2, 1, {"channels": 16})).eval().requires_grad_(False)
    weights = sum(parameter.numel() for parameter in refine.parameters())
    facts = {"halos": {"8": 40.5}, "qualities": {"high": 0.02}, "quality": "high", "sees": 9, "weights": weights}
    config = BlackBoxConfig(base.config, refine.config, 8, 8, window=4, smallest=8, **facts | changed)
    network = join(base, refine, config)
    save_black_box(path, network, state, {"weights": "none"}, {"pays": True})
    return network


def test_a_file_holds_it_whole(tmp_path, spandrel):
    network, image = saved(tmp_path / "it.safetensors"), image_of()
    again = load_checkpoint(tmp_path / "it.safetensors")
    assert again.config == network.config
    assert read_metadata(tmp_path / "it.safetensors")["config"] == network.config
    for how in ({}, {"fraction": 0.3}, {"mode": "dense"}):
        pictures = [np.asarray(MaskGuidedSR(one, **how).upscale(image)) for one in (network, again)]
        assert np.array_equal(*pictures)
    assert MaskGuidedSR(again).amount.threshold == 0.02
    other = from_state(state_of(), "it")  # what is loaded is what the file has
    assert not torch.equal(again.refine.body.first.weight, other.body.first.weight)


def test_without_the_library_a_sentence_says_what_is_missing(tmp_path, spandrel, monkeypatch):
    saved(tmp_path / "it.safetensors")
    monkeypatch.delitem(sys.modules, MODULE)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert read_metadata(tmp_path / "it.safetensors")["config"].network == "Windowed", "what it is can be told"
    with pytest.raises(CheckpointError, match=r"it.safetensors is run by spandrel: .*pip install 'mga_kernels\[span"):
        load_checkpoint(tmp_path / "it.safetensors")


def damaged(path, change):
    """The file with other tensors or another configuration."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    config = json.loads(metadata["config"])
    change(tensors, config)
    save_file(tensors, path, metadata | {"config": json.dumps(config)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, config: tensors.pop("refine.first.weight"), "is not loaded by spandrel"),
        (lambda tensors, config: tensors.pop("base.body.body.0.weight"), "base.body.body.0.weight is missing in"),
        (lambda tensors, config: tensors.update({"more": torch.ones(1)}), "tensor more belongs to neither"),
        (lambda tensors, config: tensors["refine.last.bias"].fill_(np.nan), "refine.last.bias holds NaN"),
        (lambda tensors, config: tensors["base.body.body.0.bias"].fill_(np.inf), "body.0.bias holds NaN or infinity"),
        (lambda tensors, config: config["refine"].update(network="Other"), "says Other x2 of 8 pixels or more, and"),
        (lambda tensors, config: config.update(smallest=16), "x2 of 16 pixels or more, and its tensors are"),
        (lambda tensors, config: config.update(weights=7), "says 7 parameters of Windowed"),
        (lambda tensors, config: config["refine"].update(network=3), "the name of a network is a text"),
        (lambda tensors, config: config.update(window=0), "window of a network that is not ours"),
        (lambda tensors, config: config.update(window=1 << 20), "window is at most 1024"),
        (lambda tensors, config: config.update(halo=6), "halo must be a multiple of 4"),
        (lambda tensors, config: config.update(together=1), "together is true or false"),
        (lambda tensors, config: config.update(halos={"8": "far"}), "halos are numbers of dB"),
        (lambda tensors, config: config.pop("refine"), "not a configuration of this version"),
        (lambda tensors, config: config["refine"].update(scale=3), "networks are of x2 and x3"),
    ],
)
def test_damaged_files_are_refused(tmp_path, spandrel, change, said):
    saved(tmp_path / "it.safetensors")
    damaged(tmp_path / "it.safetensors", change)
    with pytest.raises(CheckpointError, match=said) as problem:
        load_checkpoint(tmp_path / "it.safetensors")
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("settings", "window", "sees"),
    [({}, 4, (4, 24)), ({"side": 6}, 6, (6, 40)), ({"depth": 1}, 4, (1, 9)), ({"depth": 0}, 1, (2, 2))],
)
def test_how_far_a_network_sees(settings, window, sees):
    found = sight.sight_of(WholeNetwork(refining(**settings)).eval(), "it.pth")
    assert found.window == window
    assert sees[0] <= found.sees <= sees[1]
    assert found.together


def test_a_network_for_one_image_at_a_time():
    class Single(Windowed):
        def forward(self, image):
            made, feature = super().forward(image)
            return made * (1 + 0.1 * (len(image) - 1)), feature

    original = Network("Single", lambda scale, blocks: Single(depth=1), minimum_size=8)
    assert not sight.sight_of(WholeNetwork(WholeConfig("Single", 2, original=original)).eval(), "it").together


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"mean": True}, "looks at the whole image"), ({"place": True}, "another picture of what is")],
)
def test_what_has_no_limited_sight_is_refused(settings, said):
    with pytest.raises(InputError, match=f"convert: it.pth is Windowed, which .*{said}"):
        sight.sight_of(WholeNetwork(refining(**settings)).eval(), "it.pth")


@pytest.fixture
def folder(tmp_path, monkeypatch, spandrel):
    """A published file and images; small figures."""
    monkeypatch.setattr(curve, "SHARES", (0.3,))
    monkeypatch.setattr(curve, "REPEATS", 1)
    torch.save(state_of(), tmp_path / "published.pth")
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.fromarray(image_of(50, 64 + 8 * number)).save(tmp_path / f"images/{number}.png")
    return tmp_path


def mga(folder, *more, base="span-x2"):
    arguments = [
        folder / "published.pth",
        "-o",
        folder / "out.safetensors",
        "--images",
        folder / "images",
        "--black-box",
    ]
    return main(["convert", *map(str, arguments), *(("--base", base) if base else ()), *map(str, more)])


def test_the_command_measures_and_says_whether_it_pays(folder, capsys):
    assert mga(folder) == 0
    said = capsys.readouterr()
    assert "Windowed x2 has windows of 4 pixels and sees" in said.out
    assert "it pays:" in said.out or "it does not pay:" in said.out
    assert ("note: refining regions does not pay" in said.err) == ("it does not pay:" in said.out)
    facts = read_metadata(folder / "out.safetensors")
    config, training = facts["config"], facts["training"]
    assert config.quality == "high"
    assert str(config.halo) in config.halos
    assert training["way"] == "black box"
    assert training["curve"][0]["share"] == 0
    assert training["seconds"] > 0
    for more in ([], ["--quality", "whole"], ["--fraction", "1"]):
        arguments = ["--model", folder / "out.safetensors", "--overwrite", *more]
        assert main(["upscale", *map(str, [folder / "images/0.png", "-o", folder / "large.png", *arguments])]) == 0
        picture = np.asarray(Image.open(folder / "large.png"))
        if more:
            image = np.asarray(Image.open(folder / "images/0.png"))
            whole = MaskGuidedSR(from_state(state_of(), "it"), runtime="pytorch").upscale(image)
            assert np.abs(picture.astype(int) - np.asarray(whole)).max() <= 1


def test_other_commands_take_it(tmp_path, spandrel, capsys):
    network, model = saved(tmp_path / "it.safetensors"), ["--model", str(tmp_path / "it.safetensors")]
    assert main(["complexity", *model, "--size", "40x48", "--json", str(tmp_path / "it.json")]) == 0
    figures = json.loads((tmp_path / "it.json").read_text())
    assert figures["params"] == sum(parameter.numel() for parameter in network.parameters())
    convolutions = sum(part.weight.numel() for part in (network.refine.body.last, network.refine.body.first))
    assert figures["gmacs"] * 1e9 > 0.3 * 40 * 48 * convolutions
    (tmp_path / "sets").mkdir()
    Image.fromarray(image_of(48, 64)).save(tmp_path / "sets/0.png")
    arguments = ["--sets", str(tmp_path / "sets"), "--scale", "2", "-o", str(tmp_path / "table.md")]
    assert main(["evaluate", *model, *arguments]) == 0
    assert "nan" not in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("settings", "more", "said"),
    [
        ({"mean": True}, [], "looks at the whole image"),
        ({}, ["--upsampler", "light"], "--upsampler is not for --black-box"),
        ({}, ["--set", "batch=2"], "batch is not for --black-box"),
        ({}, ["--base", "span-x4-fast"], "makes x4 and Windowed x2"),
        ({}, ["--base", "fsrcnn-x2"], "no whole network of RGB"),
        ({}, ["--report", "page.html"], "--report is not for --black-box"),
    ],
)
def test_what_cannot_be_converted_so(folder, capsys, settings, more, said):
    torch.save(state_of(**settings), folder / "published.pth")
    assert mga(folder, *more) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "out.safetensors").exists()


def test_a_base_net_is_asked_for_by_black_boxes_only(folder, capsys):
    arguments = [folder / "published.pth", "-o", folder / "out.safetensors", "--images", folder / "images", "--regions"]
    assert main(["convert", *map(str, arguments), "--base", "span-x2"]) == 1
    assert "--base is for --black-box" in capsys.readouterr().err


def test_images_are_so_large_that_it_ends_in_time(folder):
    refine = from_state(state_of(), "it")
    assert conversion.side_for(refine, 1e-9) == curve.SMALLEST
    assert conversion.side_for(refine, 1e9) == curve.LARGEST


# --- with spandrel itself


@pytest.fixture(scope="module")
def swinir():
    state = black_boxes.swinir(2)
    return state or pytest.skip("spandrel cannot be imported")


def test_dat_which_takes_means_of_the_image_is_refused(swinir):
    from spandrel.architectures.DAT.__arch.DAT import DAT

    from mga_kernels.checkpoints.black_box import by_spandrel

    torch.manual_seed(0)
    shape = {"img_size": 16, "embed_dim": 32, "split_size": [2, 4], "depth": [2], "num_heads": [2]}
    state = DAT(**shape, upscale=2, upsampler="pixelshuffledirect", resi_connection="1conv").state_dict()
    with pytest.raises(InputError, match=r"convert: it\.pth is DAT, which looks at the whole image"):
        sight.sight_of(by_spandrel(state, "it"), "it.pth")


def test_swinir_refines_what_span_makes(swinir, tmp_path, monkeypatch):
    from mga_kernels.checkpoints.black_box import by_spandrel

    refine, base = by_spandrel(swinir, "it"), load_checkpoint("span-x2")
    found = sight.sight_of(refine, "it")
    assert found.window == 4
    assert 6 <= found.sees <= 24
    network = conversion.network_of(base, refine, found, 8)
    halo = -(-found.sees // 4) * 4
    whole = MaskGuidedSR(network, mode="dense").upscale(image_of(61, 90).astype(np.uint16) * 257).astype(int)
    config = BlackBoxConfig(**{**vars(network.config), "halo": halo})
    save_black_box(tmp_path / "it.safetensors", join(base, refine, config), swinir, {}, {})
    model = MaskGuidedSR.from_checkpoint(tmp_path / "it.safetensors", fraction=0.2)
    assert "convolutions of our own" in model.info()["photographs"]
    found = model.explain(image_of(61, 90))
    cells = np.isin(np.arange(found.mask.size), found.indices).reshape(found.mask.shape)
    inside = cells.repeat(16, 0).repeat(16, 1)[:122, :180]
    made = np.asarray(model.upscale(image_of(61, 90).astype(np.uint16) * 257)).astype(int)
    assert np.abs(made - whole)[inside].max() <= 2
    assert np.abs(made - whole)[~inside].max() > 200
