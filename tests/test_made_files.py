"""Files that a seed makes: odd ones give the picture of the network that is in them, of others one sentence is said."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import made_graphs
import numpy as np
import pytest
import torch
from hostile_files import zipped
from made_files import BROKEN, CONTAINERS, MAKERS, ODD, WRONG, network
from network_zoo import one_thread, photographs
from PIL import Image
from test_odd_files import bounded, refused

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import MGAError
from mga_kernels.networks import SRNetwork

SEED = 20
SIDES = 16, 20
TIMES = 4  # of each graph by each change that may leave a network

pytestmark = pytest.mark.filterwarnings("ignore::mga_kernels.errors.CheckpointNote")


@pytest.fixture(autouse=True)
def _quick():
    with one_thread():
        yield


@pytest.fixture(autouse=True, scope="module")
def _warm(tmp_path_factory):
    """What the first network takes alone: modules, and memory that is kept."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "net.pth").write_bytes(zipped(network("compact")[0]))
    written(folder, made_graphs.graph(folder, "compact"))
    for name in ("net.pth", "net.param"):
        load_checkpoint(folder / name)


@cache
def expected_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph, and what was written down makes of it."""
    image = photographs(*SIDES)[:1]
    expected = network(name)[1](image).float()
    assert expected.std() > 0.01, "a flat picture proves nothing"
    return image, expected


def half(kinds: Iterable[str], name: str) -> list[str]:
    """Of these kinds of faults those that this network is tried with; the next one has the others."""
    return list(kinds)[list(MAKERS).index(name) % 2 :: 2]


def rng_of(*words: object) -> random.Random:
    return random.Random(f"{SEED} {words}")


def right(path: Path, name: str, what: str) -> SRNetwork:
    """As `mga upscale` loads it, the network makes what was written down."""
    image, expected = expected_of(name)
    with bounded(what):
        loaded = load_checkpoint(path, **({} if path.suffix == ".param" else network(name)[2]))
    assert (loaded(image) - expected).abs().max() < 1e-4 * max(1, float(expected.abs().max())), what
    return loaded


def same_photograph(loaded: SRNetwork, name: str) -> None:
    image, expected = expected_of(name)
    picture = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    levels = (255 * expected.clamp(0, 1))[0].permute(1, 2, 0).numpy()
    model = MaskGuidedSR(loaded, device="cpu", dtype="float32")
    assert np.abs(model.upscale(picture) - levels).max() < 0.6


def test_there_are_hundreds():
    state_dicts = len(MAKERS) * (len(ODD) + len(WRONG) // 2 + len(BROKEN) // 2)
    graphs = len(made_graphs.KINDS) * (len(made_graphs.ODD) + len(made_graphs.WRONG) + len(made_graphs.BROKEN))
    assert state_dicts + graphs > 700
    assert len(ODD) + len(WRONG) + len(BROKEN) + len(made_graphs.ODD) + len(made_graphs.WRONG) > 90


@pytest.mark.parametrize("name", MAKERS)
def test_odd_files_give_the_right_picture(tmp_path, name):
    state, _, _ = network(name)
    kinds = list(CONTAINERS) * (len(ODD) // len(CONTAINERS) + 1)
    for (oddity, change), kind in zip(ODD.items(), rng_of(name).sample(kinds, len(ODD)), strict=True):
        file, write = CONTAINERS[kind]
        path = tmp_path / file
        path.write_bytes(write(change(rng_of(name, oddity), dict(state))))
        loaded = right(path, name, f"{name} {oddity}, {kind}")
        path.unlink()
    same_photograph(loaded, name)


@pytest.mark.parametrize("name", MAKERS)
def test_tensors_that_are_no_network(tmp_path, name):
    path = tmp_path / "net.pth"
    for fault in half(WRONG, name):
        path.write_bytes(zipped(WRONG[fault](rng_of(name, fault), dict(network(name)[0]))))
        refused(path, f"{name} with {fault}")


@pytest.mark.parametrize("name", MAKERS)
def test_bytes_that_are_no_file(tmp_path, name):
    canary = tmp_path / "canary"
    for fault in half(BROKEN, name):
        suffix, make = BROKEN[fault]
        path = tmp_path / f"net{suffix}"
        path.write_bytes(make(rng_of(name, fault), dict(network(name)[0]), canary))
        refused(path, f"{name}: {fault}")
    assert not canary.exists()


def written(folder: Path, files: tuple[str, bytes]) -> Path:
    (folder / "net.param").write_bytes(files[0].encode())
    (folder / "net.bin").write_bytes(files[1])
    return folder / "net.param"


@pytest.mark.parametrize("kind", made_graphs.KINDS)
def test_odd_graphs_give_the_right_picture(tmp_path, kind):
    text, data = made_graphs.graph(tmp_path, kind)
    for oddity, change in made_graphs.ODD.items():
        path = written(tmp_path, change(rng_of(kind, oddity), text, data))
        loaded = right(path, kind, f"{kind} with {oddity}")
    same_photograph(loaded, kind)


@pytest.mark.parametrize("kind", made_graphs.KINDS)
def test_graphs_that_are_no_network(tmp_path, kind):
    text, data = made_graphs.graph(tmp_path, kind)
    for fault, change in made_graphs.WRONG.items():
        said = refused(written(tmp_path, change(rng_of(kind, fault), text, data)), f"{kind} with {fault}")
        assert said.count("its layer") <= 1, "it is said once"


@pytest.mark.parametrize("kind", made_graphs.KINDS)
def test_graphs_that_may_be_one(tmp_path, kind):
    """What is changed anywhere is refused, or is a network, whose numbers may be others."""
    text, data = made_graphs.graph(tmp_path, kind)
    taken = 0
    for fault, change in made_graphs.BROKEN.items():
        for time in range(TIMES):
            path = written(tmp_path, change(rng_of(kind, fault, time), text, data))
            try:
                with bounded(fault):
                    made = load_checkpoint(path)(expected_of(kind)[0])
            except MGAError:
                refused(path, f"{kind} with {fault}")
            else:
                taken += 1
                assert made.shape[:2] == (1, 3)
                assert bool(torch.isfinite(made).all()), fault
    assert taken


def test_the_command_says_the_same(tmp_path, capfd):
    """One of each network with a fault, by `mga upscale --model`: the sentence, and nothing else."""
    Image.new("RGB", (20, 16), (90, 80, 70)).save(tmp_path / "photo.png")
    large = tmp_path / "large.png"
    for number, name in enumerate(MAKERS):
        path = tmp_path / "net.pth"
        fault = list(WRONG)[7 * number % len(WRONG)]
        path.write_bytes(zipped(WRONG[fault](rng_of(name, fault), dict(network(name)[0]))))
        assert main(["upscale", str(tmp_path / "photo.png"), "-o", str(large), "--model", str(path)]) == 1, fault
        printed, said = capfd.readouterr()
        assert printed == ""
        assert said.startswith("mga: ")
        assert said.count("\n") == 1
        assert str(path) in said
        assert not large.exists()
