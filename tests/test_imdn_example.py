"""The worked example of a network from outside: its published weights, and the commands with a model of it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from network_zoo import IMDN, example_registered, photographs
from PIL import Image
from test_networks import _set5
from tiny_model import write_tiny_model

from mga.cli import main
from mga.metrics import psnr_y
from mga.train.packs import write_pack
from mga_kernels.checkpoints import load_model, read_state_dict
from mga_kernels.engine import MaskGuidedSR
from mga_kernels.errors import CheckpointError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


@pytest.fixture
def _imdn():
    with example_registered():
        yield


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    with example_registered():
        return write_tiny_model(tmp_path_factory.mktemp("model") / "imdn.safetensors", network="imdn", k=2)


def mga(*arguments: object, networks: object = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with MGA_NETWORKS set to ``networks`` or not at all."""
    environment = {name: value for name, value in os.environ.items() if name != "MGA_NETWORKS"}
    environment |= {} if networks is None else {"MGA_NETWORKS": str(networks)}
    command = [sys.executable, "-m", "mga", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.usefixtures("_imdn")
@pytest.mark.parametrize(("name", "expected"), [("butterfly", 28.559), ("woman", 30.751)])
def test_the_published_file_restores_set5(shared_data, name, expected):
    """The file loads as it is. The mean over the five images is 32.21 dB, the figure that its authors publish."""
    model = MaskGuidedNetwork(ModelConfig("imdn", 4, split=(6, 1))).eval().requires_grad_(False)
    model.base.load_state_dict(read_state_dict(shared_data / "data/checkpoints/imdn_x4_Zheng222.pth"))
    lr, hr = _set5(shared_data, name)
    restored = model(torch.from_numpy(lr).permute(2, 0, 1)[None] / 255, variant="base")
    restored = (restored[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert psnr_y(restored, hr, border=4) == pytest.approx(expected, abs=0.005)


@pytest.mark.usefixtures("_imdn")
def test_parts_count_what_the_published_file_counts():
    """715,176 parameters with 6 blocks. Each block is 104,020 of them, and its part of the fusion 64 x 64."""
    with torch.device("meta"):
        published = MaskGuidedNetwork(ModelConfig("imdn", 4, split=(6, 1))).base
        default = MaskGuidedNetwork(ModelConfig("imdn", 4)).base
    counts = [sum(parameter.numel() for parameter in base.parameters()) for base in (published, default)]
    assert counts == [715_176, 715_176 - 2 * (104_020 + 64 * 64)]


def test_upscale_with_a_model_of_it(tmp_path, model_file):
    photo = (photographs(12, 18)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = "upscale", tmp_path / "photo.png", "-o", tmp_path / "large.png", "--model", model_file
    refused = mga(*arguments)
    assert refused.returncode == 1
    assert "network: 'imdn' is not known" in refused.stderr
    assert "name the file that registers it in the environment variable MGA_NETWORKS" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "large.png").exists()
    done = mga(*arguments, networks=IMDN)
    assert (done.returncode, done.stderr) == (0, "")
    with example_registered():
        model = MaskGuidedSR.from_pretrained(model_file)
        assert model.network == "imdn"
        expected, coarse = model.upscale(photo), MaskGuidedSR.from_pretrained(model_file, k=0).upscale(photo)
    found = np.asarray(Image.open(tmp_path / "large.png"))
    assert np.abs(found.astype(int) - expected).max() <= 1, "a level at most, by the number of threads"
    assert (found != coarse).any()


def test_info_runs_with_it_and_a_broken_file_stops_nothing_else(tmp_path):
    (tmp_path / "broken.py").write_text("def")
    for networks in (IMDN, tmp_path / "broken.py"):
        info = mga("info", networks=networks)
        assert (info.returncode, info.stderr) == (0, "")
        assert "rfdn-x4: rfdn x4" in info.stdout


def test_a_model_of_it_without_it_is_refused_with_the_remedy(model_file, monkeypatch):
    monkeypatch.delenv("MGA_NETWORKS", raising=False)
    with pytest.raises(CheckpointError, match=r"network: 'imdn' is not known; .* environment variable MGA_NETWORKS"):
        load_model(model_file)


@pytest.mark.usefixtures("_imdn")
def test_it_is_trained_as_any_other(tmp_path, model_file):
    """By the command, from weights of its own: what docs/own_network.md says."""
    hr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write_pack(tmp_path / "train.safetensors", [("a", (hr, hr[::2, ::2]))], 2)
    steps = "".join(f"{step} = {{ iterations = 1, periods = 1 }}\n" for step in ("dense", "all", "mask"))
    paths = f'out = "{tmp_path}"\ntrain = ["{tmp_path}/train.safetensors"]\ninitial = "{model_file}"\n'
    (tmp_path / "mine.toml").write_text(f'network = "imdn"\nscale = 2\ncrop = 8\nbatch = 1\n{paths}{steps}')
    assert main(["train", str(tmp_path / "mine.toml")]) == 0
    before, after = (load_model(path).state_dict() for path in (model_file, tmp_path / "imdn-x2.safetensors"))
    changed = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"base", "refine", "mask"}
    assert all((tensor - after[name]).abs().max() < 0.1 for name, tensor in before.items() if name.startswith("base."))
