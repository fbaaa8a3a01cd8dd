"""``mga convert --regions``: what a small network learns, what is measured, resumed and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import originals
import pytest
import torch
from network_zoo import photographs
from PIL import Image

from mga.cli import main
from mga.conversion import curve, distilling, pictures
from mga.conversion.curve import Point
from mga.conversion.distilling import Distilling
from mga.conversion.material import Material
from mga.conversion.settings import Training
from mga.evaluation.metrics import luma
from mga.training import loop
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, read_metadata
from mga_kernels.networks import WholeConfig, WholeNetwork

SMALL = Training(crop=16, batch=2, rates={"base": 2e-4})


@pytest.fixture
def small(monkeypatch):
    """One thread, with which sums are the same each time, and a Base-Net that begins with the published layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(distilling, "BASES", ((1, 12),))
    monkeypatch.setattr(curve, "HALOS", (4, 8))
    monkeypatch.setattr(curve, "SHARES", (0.3,))
    yield
    torch.set_num_threads(threads)


def teacher_of(blocks: int = 3) -> WholeNetwork:
    torch.manual_seed(2)
    network = WholeNetwork(WholeConfig("compact", 2, blocks, {"channels": 12})).eval().requires_grad_(False)
    network.body.body[-1].weight.mul_(0.3)
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published network's file, and a folder of six parts of photographs."""
    torch.save(dict(teacher_of().body.state_dict()), tmp_path / "published.pth")
    (tmp_path / "images").mkdir()
    for number, image in enumerate([*photographs(48, 40), *photographs(40, 56), *photographs(64, 64)]):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def begin(folder: Path, name: str = "state", iterations: int = 8, rate: float = SMALL.rates["base"]) -> Distilling:
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, False)
    training = replace(SMALL, rates={"base": rate})
    return Distilling(teacher_of(), Material(train, held_out, folder / name, 1.0, training), 8, iterations)


def loss_of(work: Distilling) -> float:
    with torch.no_grad():
        return float(sum(work._loss(number) for number in range(100, 110)))


def test_the_small_network_comes_nearer_and_the_published_one_stays(folder, small, monkeypatch):
    monkeypatch.setattr(distilling, "BUSY_WEIGHT", 1.0)
    monkeypatch.setattr(distilling, "FLAT_WEIGHT", 0.0)
    work = begin(folder, iterations=120)
    published = {name: value.clone() for name, value in teacher_of().state_dict().items()}
    before = loss_of(work)
    run_steps, fitted = distilling.run_steps, []
    monkeypatch.setattr(distilling, "run_steps", lambda *them: (fitted.append(loss_of(work)), run_steps(*them)))
    work._train()
    assert fitted[0] < 0.9 * before, "least squares"
    assert loss_of(work) < fitted[0], "training"
    for name, value in work.network.refine.state_dict().items():
        assert torch.equal(value, published[name])


def test_a_large_base_net_does_not_fall_apart(folder, small, monkeypatch):
    monkeypatch.setattr(distilling, "BASES", ((6, 64),))
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, False)
    material = Material(train, held_out, folder / "large", 1.0, Training(crop=16, batch=2))
    work = Distilling(teacher_of(), material, 8, 60)
    losses, loss = [], work._loss
    monkeypatch.setattr(work, "_loss", lambda number: losses.append(loss(number)) or losses[-1])
    work._train()
    assert max(loss.item() for loss in losses) < 4 * losses[0].item()


def test_flat_colours_become_those_of_the_published_network(folder, small, monkeypatch):
    """Of photographs alone a small network would not learn them, and what is flat is never refined."""

    def trained(weight: float) -> float:
        """By how much flat colours are wrong after a training in which they count so much."""
        work = begin(folder, f"flat{weight}", iterations=200, rate=2e-3)
        monkeypatch.setattr(distilling, "FLAT_WEIGHT", weight)
        work._train()
        monkeypatch.setattr(distilling, "FLAT_WEIGHT", 1.0)
        with torch.no_grad():
            return float(sum(work._flat_loss(number) for number in range(16)))

    assert trained(10.0) < 0.5 * trained(0.0)
    work = begin(folder, "made")
    colours, wanted = work.flats
    image = np.full((33, 33, 3), (255 * colours[5]).round().numpy(), np.uint8)
    assert (wanted[5] == torch.from_numpy(np.asarray(work.whole.upscale(image))[40, 30]) / 255).all()
    assert (255 * (wanted - colours)).abs().max() > 3, "this network moves them"


@pytest.mark.parametrize("number", range(4))
def test_what_the_small_network_makes_at_the_border_of_an_image_counts(folder, small, monkeypatch, number):
    """Crops cut it off; a network that has not learned what the zeros behind it do makes a frame around pictures."""
    work, made = begin(folder), []
    monkeypatch.setattr(work, "_flat_loss", lambda number: 0)
    monkeypatch.setattr(distilling, "weights_of", lambda wanted, scale, cell: torch.ones_like(wanted[:, :1]))

    def make(lr: torch.Tensor) -> torch.Tensor:
        large = lr.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.1
        made.append((lr, large.requires_grad_()))
        return made[-1][1]

    monkeypatch.setattr(work, "_made", make)
    work._loss(number).backward()
    (_, crops), (corners, large) = made
    side, inner = corners.shape[-1], crops.shape[-1] - 4 * distilling.MARGIN
    assert (crops.grad.abs().sum((0, 1)) > 0).sum() == inner**2

    images = [
        lr[rows, columns]
        for _, lr in work.crops.pairs
        for rows in (slice(side), slice(-side, None))
        for columns in (slice(side), slice(-side, None))
    ]
    given = (255 * corners).round().byte().permute(0, 2, 3, 1).numpy()
    assert all(any((one == image).all() for image in images[number // 2 + 2 * (number % 2) :: 4]) for one in given)
    y, x = (abs(torch.arange(2 * side) - first * (2 * side - 1)) for first in (number & 1, number >> 1))
    seen, kept = 2 * work.network.base.reach.front, 2 * (side - distilling.MARGIN)
    border = ((y[:, None] < seen) | (x < seen)) & (y[:, None] < kept) & (x < kept)
    assert torch.equal(large.grad.abs().sum((0, 1)) > 0, border)


def test_a_large_gradient_moves_weights_no_further_than_others(folder, small, monkeypatch):
    """Else one hard crop among thousands undoes what was learnt, at the rates that small networks need."""
    work, places = begin(folder, iterations=2000), []
    body = work.network.base.body

    def loss(number: int) -> torch.Tensor:
        places.append(body.body[0].bias.detach().clone())
        if number == 510:
            raise KeyboardInterrupt
        return (100.0 if number == 500 else 1.0) * sum(p.sum() for p in body.parameters())

    monkeypatch.setattr(work, "_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        work._train()
    moved = [float((one - other).abs().max()) for one, other in zip(places[1:], places, strict=False)]
    assert max(moved[500:]) < 1.3 * max(moved[:500])


def test_errors_count_little_where_cells_will_be_refined(folder, small, monkeypatch):
    torch.manual_seed(0)
    wanted = 0.5 + 0.001 * torch.rand(2, 3, 64, 96)
    wanted[1, :, :, 48:] = torch.rand(3, 64, 48)  # a quarter, and what is around its edge is the rest of the busy
    weights = distilling.weights_of(wanted, 2, 8)
    assert weights.shape == (2, 1, 64, 96)
    assert (weights[1, :, :, 48:] == distilling.BUSY_WEIGHT).all()
    assert (weights[0] == 1).all()
    assert (weights[1, :, :, :36] == 1).all()
    assert distilling.weights_of(torch.zeros(1, 3, 32, 32), 2, 8).unique().tolist() == [1.0]
    work, losses = begin(folder), []
    monkeypatch.setattr(work, "_flat_loss", lambda number: 0)
    monkeypatch.setattr(work, "_border_loss", lambda number: 0)
    monkeypatch.setattr(work, "crops", lambda number: (torch.zeros(2, 3, 32, 48), wanted))
    for image in (0, 1):
        wrong = torch.zeros_like(wanted)
        wrong[image, :, 16:48, 56:80] = 0.1
        monkeypatch.setattr(work.network.base, "forward", lambda lr, made=wanted + wrong: made)
        losses.append(float(work._loss(0)))
    assert losses[1] == pytest.approx(distilling.BUSY_WEIGHT * losses[0], rel=1e-4)


def test_what_is_measured_is_what_upscaling_does(folder, small):
    work = begin(folder)
    work.run()
    config = work.network.config
    assert config.quality == "high"
    assert set(config.qualities) == {"high", "fast"}
    assert config.qualities["high"] <= config.qualities["fast"]
    assert config.halo in (4, 8)
    assert [point.share for point in work.points] == sorted(point.share for point in work.points)
    whole = MaskGuidedSR(teacher_of(), runtime="own")
    for point in work.points:
        model = MaskGuidedSR(work.network, runtime="own", threshold=point.threshold)
        found = [
            10 * np.log10(255**2 / np.square(luma(a) - luma(b)).mean().clip(1e-5))
            for a, b in ((np.asarray(model.upscale(lr)), np.asarray(whole.upscale(lr))) for lr in work.held_out)
        ]
        assert np.mean(found) == pytest.approx(point.db, abs=0.6), point  # but for the halo
        assert point.time is not None
        assert point.time > 0


def test_the_halo_is_the_one_that_takes_least_time(folder, small, monkeypatch):
    monkeypatch.setattr(curve, "HALOS", (0, 4))  # of which the second is all that the network sees
    monkeypatch.setattr(curve, "AS_WHOLE", 1000.0)  # so that it is tried
    monkeypatch.setattr(curve, "QUALITIES", {"high": 36.0})  # so that not all cells are refined
    work, seconds, made = begin(folder, iterations=60), [1.0, 2.0], []

    def best_of(runs):
        if len(runs) > len(seconds):
            return [1.0] * len(runs)
        made.extend(np.asarray(run()) for run in runs)
        return seconds

    monkeypatch.setattr(curve, "best_of", best_of)
    work._train()
    for halo in curve.HALOS:
        work.measure()
        assert work.network.config.halo == halo
        assert not np.array_equal(*made), "each run has its own halo"
        made.clear()
        seconds.reverse()


def test_with_a_halo_that_makes_errors_more_cells_are_needed(folder, small, monkeypatch):
    work, asked = begin(folder), []
    fastest = work._fastest
    monkeypatch.setattr(work, "_try_halos", lambda *them: work.halos.update({0: 45.5, 4: 90.0}))
    monkeypatch.setattr(work, "_fastest", lambda shares: (asked.extend(shares), fastest(shares))[1])
    work.measure()
    (without, more), (with_all, fewer) = asked
    assert (without, with_all) == (0, 4)
    assert more > fewer


def test_parts_of_images_are_measured_that_the_minutes_have_room_for(folder, small, monkeypatch):
    monkeypatch.setattr(curve, "SMALLEST", 24)
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, False)
    sides = [
        max(max(image.shape[:2]) for image in begun.held_out)
        for minutes in (1e-9, 1e9)
        for begun in [Distilling(teacher_of(), Material(train, held_out, folder / f"{minutes}", minutes, SMALL), 8)]
    ]
    assert sides == [24, max(max(lr.shape[:2]) for _, lr in held_out)]


def test_a_conversion_that_was_stopped_goes_on_to_the_same_weights(folder, small, monkeypatch):
    whole = begin(folder, "whole")
    whole._train()
    stopped, save = begin(folder, "stopped"), loop.save_state

    def stop_after(path: Path, state: dict) -> None:
        save(path, state)
        if state["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped._train()
    monkeypatch.undo()
    monkeypatch.setattr(distilling, "BASES", ((1, 12),))
    again = begin(folder, "stopped")
    again._train()
    for name, value in whole.network.base.state_dict().items():
        assert torch.equal(again.network.base.state_dict()[name], value), name


@pytest.mark.parametrize("blocks", [3, 1])  # the latter's channels are not the small network's
def test_what_was_trained_needs_no_pictures_of_the_published_network_again(folder, small, monkeypatch, blocks):
    teacher = teacher_of() if blocks == 3 else WholeNetwork(WholeConfig("compact", 2, 1, {"channels": 8})).eval()
    train, held_out = pictures.read_pairs(folder / "images", 2, 16, False)
    begun = lambda: Distilling(teacher, Material(train, held_out, folder / "done", 1.0, SMALL), 8, 8)  # noqa: E731
    whole, again = begun(), begun()
    whole.run()
    monkeypatch.setattr(Distilling, "_painted", lambda self: pytest.fail("made again"))
    again.run()
    for name, value in whole.network.base.state_dict().items():
        assert torch.equal(again.network.base.state_dict()[name], value), name
    assert again.points


def mga(folder: Path, *arguments: object) -> int:
    options = [str(folder / "published.pth"), "-o", str(folder / "out.safetensors"), "--images", str(folder / "images")]
    options += ["--set", "crop=16", "--set", "batch=2", "--minutes", "0.01"]
    return main(["convert", *options, *map(str, arguments)])


def test_the_command_writes_a_model_that_upscales_and_says_whether_it_pays(folder, small, capsys):
    assert mga(folder, "--report", folder / "page.html") == 0
    output = capsys.readouterr()
    assert "it pays:" in output.out or "it does not pay:" in output.out
    assert ("note: refining regions does not pay" in output.err) == ("it does not pay:" in output.out)
    facts = read_metadata(folder / "out.safetensors")
    assert facts["config"].refine == load_checkpoint(folder / "published.pth").config
    assert facts["training"]["way"] == "regions"
    assert facts["training"]["curve"][0]["share"] == 0
    assert "published.pth" in facts["licence"]["weights"]
    assert "in regions" in (folder / "page.html").read_text()
    out = folder / "large.png"
    for more in ([], ["--quality", "fast"], ["--quality", "whole"], ["--fraction", "0.5"]):
        arguments = [str(folder / "images/0.png"), "-o", str(out), "--model", str(folder / "out.safetensors"), *more]
        assert main(["upscale", "--overwrite", *arguments]) == 0
        assert Image.open(out).size == (80, 96)
    whole = MaskGuidedSR.from_checkpoint(folder / "published.pth", runtime="own")
    image = np.asarray(Image.open(folder / "images/0.png"))
    (folder / "sets").mkdir()
    Image.fromarray(np.asarray(whole.upscale(image))).save(folder / "sets/0.png")
    arguments = ["--model", str(folder / "out.safetensors"), "--sets", str(folder / "sets"), "--scale", "2"]
    assert main(["evaluate", *arguments, "-o", str(folder / "table.md")]) == 0
    assert main(["complexity", "--model", str(folder / "out.safetensors"), "--size", "40x40"]) == 0
    every = MaskGuidedSR.from_pretrained(folder / "out.safetensors", runtime="own", fraction=1.0)
    assert np.array_equal(every.upscale(image), whole.upscale(image))


def test_a_shipped_model_is_known_by_its_name(folder, monkeypatch):
    asked = []
    monkeypatch.setattr("mga.commands.convert.convert", lambda request: asked.append(request) or False)
    for name in ("span-x4", str(folder / "published.pth")):
        assert main(["convert", name, "-o", str(folder / "out.safetensors"), "--images", str(folder)]) == 0
    assert asked[0].checkpoint.name == "span-x4.safetensors"
    assert asked[0].checkpoint.is_file()
    assert asked[1].checkpoint == folder / "published.pth"


def test_ctrl_c_leaves_a_model_that_upscales(folder, small, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(distilling, "run_steps", stop)
    assert mga(folder) == 130
    assert "goes on from" in capsys.readouterr().err
    assert read_metadata(folder / "out.safetensors")["training"]["finished"] == "stopped early"
    assert len(np.asarray(MaskGuidedSR.from_pretrained(folder / "out.safetensors").upscale(np.zeros((9, 9, 3), "u1"))))


def test_whether_it_pays_is_the_time_at_the_high_quality(folder, small, monkeypatch):
    work = begin(folder)
    for time, pays in ((0.5, True), (0.95, False)):
        timed = lambda points, config, time=time: [Point(p.share, p.threshold, p.db, time) for p in points]  # noqa: E731
        monkeypatch.setattr(work, "_timed", timed)
        monkeypatch.setattr(work, "_share_for", lambda point, wanted: 0.3)
        work.measure()
        assert work.pays == pays
        assert ("it pays" in work.report()) == pays


def test_another_conversion_in_the_folder_is_refused(folder, small, capsys):
    assert mga(folder) == 0
    assert mga(folder, "--patch-size", "4") == 1
    assert "holds a run with patch size = 12, this one has 4" in capsys.readouterr().err
    assert json.loads((folder / "out.state/conversion.json").read_text())["way"] == "regions"


@pytest.mark.parametrize(
    ("original", "options", "said"),
    [
        (lambda: originals.rcan(2)[0], ["--input-range", "0..1"], "looks at the whole image"),
        (
            lambda: originals.fsrcnn_classic(2)[0],
            ["--model-scale", "2", "--input-range", "0..1"],
            "only networks of RGB",
        ),
        (lambda: originals.msrresnet(2)[0], ["--upsampler", "light"], "--upsampler is for --split"),
    ],
)
def test_networks_without_regions_are_refused(folder, small, capsys, original, options, said):
    torch.save(dict(original()), folder / "published.pth")
    assert mga(folder, "--regions", *options) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "out.safetensors").exists()
