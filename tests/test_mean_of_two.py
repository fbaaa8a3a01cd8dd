"""Regions of which a cell is the mean of two networks' pictures, and ``mga convert --extend`` by another network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from film_networks import image_of
from network_zoo import photographs, random_model
from PIL import Image
from test_regions import network_of, of_cells

from mga.cli import main
from mga.complexity.counting import RegionCosts
from mga.conversion import curve, second
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, read_metadata, save_model
from mga_kernels.errors import InputError
from mga_kernels.networks import BlackBoxConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.region_plan import RegionWeights, average_

WITH_PLACE = WholeConfig("rfdn", 4, 2, input_range="0..255")  # its Base-Net must know where a tile stands


def alone(network: WholeNetwork, image: np.ndarray) -> np.ndarray:
    return np.asarray(MaskGuidedSR(network, runtime="own", dtype="float32").upscale(image)).astype(float)


def test_bytes_are_rounded_to_the_even_and_so_by_nothing_in_the_mean():
    one, other = (values.flatten().byte() for values in torch.meshgrid(*[torch.arange(256)] * 2, indexing="ij"))
    exact = (one.double() + other.double()) / 2
    average_(made := one.clone(), other)
    assert torch.equal(made.double(), exact.round())  # which rounds halves to the even
    assert abs(float((made.double() - exact).mean())) < 1e-9
    average_(values := torch.tensor([0.25, 1.0]), torch.tensor([0.75, 0.5]))
    assert values.tolist() == [0.5, 0.75]


@pytest.mark.parametrize("how", [{"fraction": 1.0}, {"mode": "dense"}])
@pytest.mark.parametrize("base", [None, WITH_PLACE])
def test_everywhere_it_is_the_mean_of_the_two_alone(how, base):
    network, image = network_of("compact", patch_size=12, mean=True), image_of()
    if base is not None:
        network = RegionNetwork(replace(network.config, base=base)).eval().requires_grad_(False)
    found = np.asarray(MaskGuidedSR(network, runtime="own", dtype="float32", **how).upscale(image))
    wanted = (alone(network.base, image) + alone(network.refine, image)) / 2
    assert np.abs(found - wanted).max() <= 0.5
    assert np.abs(found - alone(network.base, image)).max() > 1


def test_other_cells_are_the_coarse_picture():
    model = MaskGuidedSR(network_of("compact", halo=8, mean=True), runtime="own", fraction=0.3)
    found = model.explain(image_of())
    cells = np.isin(np.arange(found.mask.size), found.indices).reshape(found.mask.shape)
    coarse, made = np.asarray(found.coarse), np.asarray(found.image)
    chosen = of_cells(model, cells, made.shape)
    assert np.array_equal(made[~chosen], coarse[~chosen])
    assert (made[chosen] != coarse[chosen]).any()


def test_a_plan_keeps_the_picture_that_it_averages_with():
    plan = RegionWeights.of(network_of("compact", mean=True), Maps()).plan(83, 150, 90)
    indices, kept = torch.arange(40, 90, dtype=torch.int32)[None], []
    for image in (image_of(), image_of()[::-1].copy(), image_of()):
        out = plan.buffer()
        plan.coarse(torch.from_numpy(image), out)
        plan.refine(indices, out)
        kept.append((plan.crop(out), plan._before.data_ptr()))
    assert torch.equal(kept[0][0], kept[2][0])
    assert not torch.equal(kept[0][0], kept[1][0])
    assert len({place for _, place in kept}) == 1


def test_images_are_as_large_as_both_take_and_never_in_tiles_that_one_cannot_place():
    settings = network_of("compact").config
    network = RegionNetwork(replace(settings, base=WITH_PLACE, mean=True)).eval().requires_grad_(False)
    assert network.reach.front is None
    assert network.config.definition.minimum_size == 15
    image = image_of()[:5, :7]
    assert MaskGuidedSR(network, runtime="own").upscale(image).shape == (20, 28, 3)


def test_what_is_not_finite_is_seen():
    network = network_of("compact", mean=True)
    network.refine.body.body[-1].bias.fill_(float("inf"))
    assert not torch.isfinite(network.unclamped(torch.rand(1, 3, 20, 20), "decomposed")).any()


def test_it_counts_both_networks():
    costs = {mean: RegionCosts(network_of("compact", mean=mean).config) for mean in (False, True)}
    first, both = costs[True].base, costs[True]
    assert both.parameters("decomposed") == first.parameters() + costs[False].parameters("decomposed")
    dense = both.cost("decomposed", 48, 36).macs
    assert dense == first.cost("whole", 48, 36).macs + costs[False].cost("decomposed", 48, 36).macs


def test_what_cannot_average_says_so():
    config = network_of("compact").config
    with pytest.raises(InputError, match="mean is true or false, got 1"):
        replace(config, mean=1)
    with pytest.raises(InputError, match="makes refined cells alone"):
        BlackBoxConfig(config.base, config.refine, halo=0, mean=True)


def off_by(bias: float, path: Path, scale: int = 2, **settings) -> Path:
    """A file of a network that enlarges by nearest neighbours and adds so much."""
    torch.manual_seed(1)
    network = WholeNetwork(WholeConfig("compact", scale, 1, {"channels": 12}, **settings))
    network.body.body[-1].weight.data.zero_()
    network.body.body[-1].bias.data.fill_(bias)
    save_model(path, network, {}, {})
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Two networks that err oppositely, one of another scale, and a folder of HR images."""
    monkeypatch.setattr(curve, "HALOS", (4, 8))
    monkeypatch.setattr(second, "SHARES", (0.3,))
    for name, bias in (("brighter", 0.04), ("darker", -0.04), ("x4", 0.0)):
        off_by(bias, tmp_path / f"{name}.safetensors", 4 if name == "x4" else 2)
    (tmp_path / "hr").mkdir()
    for number, image in enumerate(photographs(96, 96)):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "hr" / f"{number}.png")
    return tmp_path


def mga(folder: Path, first: str, *arguments: str) -> int:
    given = ["-o", str(folder / "out.safetensors"), "--images", str(folder / "hr"), "--minutes", "0.01"]
    return main(["convert", str(folder / first), *given, *arguments])


def test_two_that_err_oppositely_are_better_together(folder, capsys):
    other = folder / "darker.safetensors"
    assert mga(folder, "brighter.safetensors", "--extend", str(other)) == 0
    said = capsys.readouterr()
    assert "it pays" in said.out
    assert said.err == ""
    network, facts = load_checkpoint(folder / "out.safetensors"), read_metadata(folder / "out.safetensors")
    assert network.config.mean
    made = facts["training"] if isinstance(facts["training"], dict) else json.loads(facts["training"])
    first, last, both = made["psnr"]
    assert both > max(first, last) + 3
    assert [point["share"] for point in made["curve"]][-1] == 1.0
    assert made["second"] == "darker.safetensors"
    image = image_of()
    model = MaskGuidedSR(network, quality="whole", runtime="own", dtype="float32")
    pictures = [alone(load_checkpoint(folder / f"{name}.safetensors"), image) for name in ("brighter", "darker")]
    assert np.abs(np.asarray(model.upscale(image)) - sum(pictures) / 2).max() <= 0.5


def test_two_that_err_alike_do_not_pay(folder, capsys):
    assert mga(folder, "darker.safetensors", "--extend", str(folder / "darker.safetensors")) == 0
    said = capsys.readouterr()
    assert "it does not pay" in said.out
    assert "stay with that" in said.err
    assert load_checkpoint(folder / "out.safetensors").config.quality == ""


def test_of_a_mask_guided_network_it_is_the_base_net():
    divided = random_model("rfdn", 4)
    network = second.whole_of(divided)
    assert (network.config.network, network.config.blocks) == ("rfdn", 1)
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(network(image).clamp(0, 1), divided(image, variant="base"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--extend", "no.safetensors"], "or another network, a file or a name that `mga models` lists; got 'no.saf"),
        (["--extend", "{folder}/x4.safetensors"], "of x2 and {folder}/x4.safetensors of x4; give two networks of one"),
        (["--extend", "rfdn-x4"], "rfdn-x4.safetensors cannot refine regions: rfdn has steps between its convolutions"),
        (["--extend", "{folder}/darker.safetensors", "--upsampler", "light"], "--upsampler is not for --extend by"),
        (
            ["--extend", "{folder}/darker.safetensors", "--set", "batch=2"],
            "batch is not for --extend by",
        ),
        (["--extend", "{folder}/darker.safetensors", "--report", "a.html"], "--report is not for --extend by another"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(folder, capsys, arguments, said):
    arguments = [argument.format(folder=folder) for argument in arguments]
    assert mga(folder, "brighter.safetensors", *arguments) == 1
    assert said.format(folder=folder) in capsys.readouterr().err
