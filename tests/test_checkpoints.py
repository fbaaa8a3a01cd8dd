"""Weights files: what is written is what is read, and everything else is refused without running anything."""

from __future__ import annotations

import json
import os
import pickle
import re

import local_originals as originals
import pytest
import torch
from network_zoo import photographs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mga.cli import main
from mga.commands.shipped import describe
from mga_kernels import MaskGuidedSR
from mga_kernels.catalogue import SHIPPED
from mga_kernels.checkpoints import (
    is_whole,
    load_checkpoint,
    load_model,
    load_native,
    read_metadata,
    read_state_dict,
    save_model,
    shipped_models,
)
from mga_kernels.checkpoints.published import check_tensors
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeNetwork


@pytest.fixture
def network() -> MaskGuidedNetwork:
    torch.manual_seed(0)
    return MaskGuidedNetwork(ModelConfig("fsrcnn", 2, patch_size=8, k=33, mask={"order": "pool-then-softmax"})).eval()


@pytest.fixture
def model_file(network, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network, {"weights": "CC0"}, {"iterations": 7})
    return path


def rewrite(path, change_tensors=lambda tensors: None, **metadata) -> None:
    tensors = load_file(path)
    change_tensors(tensors)
    facts = read_metadata(path)
    kept = {"format": "mga_kernels", "config": facts["config"].to_json(), "licence": "{}", "training": "{}"}
    save_file(tensors, path, {k: v for k, v in (kept | metadata).items() if v is not None})


def test_round_trip(network, model_file):
    loaded = load_model(model_file)
    assert loaded.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    image = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))
    facts = read_metadata(model_file)
    assert facts["licence"] == {"weights": "CC0"}
    assert facts["training"] == {"iterations": 7}
    assert os.listdir(model_file.parent) == ["model.safetensors"], "a partial file was left"


def test_shipped_models_load_and_say_where_they_come_from():
    models = shipped_models()
    assert "rfdn-x4" in models
    described = describe()
    assert described.keys() == models.keys()
    for name, path in models.items():
        facts = read_metadata(name)
        assert f"x{facts['config'].scale}" in name.split("-")
        assert facts["licence"], f"{path} carries no licence notice"
        for notice in facts["licence"].values():  # of others: its text lies beside the weights
            for file in re.findall(r"mga_kernels/weights/(\S+\.txt)", notice):
                assert (SHIPPED / file).read_text().strip()
        assert facts["training"].get("results") or facts["training"]["published"]
        assert described[name]["purpose"]
        assert described[name]["masked"] is not is_whole(name)
        load_native(name)


def test_a_whole_model_that_ships(tmp_path):
    """Whole, by its name, as a file, and where a mask is asked for."""
    network = load_native("span-x4")
    assert isinstance(network, WholeNetwork)
    image = photographs(9, 12)
    model = MaskGuidedSR.from_pretrained("span-x4", device="cpu")
    assert (model.whole, model.mode, model.scale) == (True, "dense", 4)
    assert torch.equal(model(image), network(image).clamp(0, 1))
    save_model(tmp_path / "mine.safetensors", network, {"weights": "theirs"}, {}, half=["body.conv_1.weight"])
    again = load_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == network.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(
        CheckpointError, match=r"span-x4 is span as a whole, without a mask, .*; `mga models` lists what"
    ):
        load_model("span-x4")
    with pytest.raises(InputError, match="no mask, so k cannot be given"):
        MaskGuidedSR.from_pretrained("span-x4", k=3)
    for command in (["figures", "a.png", "-o", "out", "--model"], ["ablate", "selection"], ["ablate", "k"]):
        words = [*command, "span-x4"] if command[0] == "figures" else [*command, "span-x4", "-o", "o", "--sets", "s"]
        assert main([word if word not in ("a.png", "out", "o", "s") else str(tmp_path / word) for word in words]) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scale": 5}, "scale 5 is not supported"),
        ({"network": "nothing"}, "'nothing' is not known"),
        ({"blocks": 5}, "tensor body.block_6.c1.bias is"),
        ({"blocks": 10**9}, "more tensors than the 44 of the file"),
        ({"settings": {"channels": 10**6}}, "does not fit span: tensor body"),
        ({"settings": {"depth": 3}}, "does not have this setting"),
        ({"settings": 3}, "not a configuration"),
        ({"more": 3}, "not a configuration"),
    ],
)
def test_a_configuration_of_a_whole_model_that_does_not_fit(tmp_path, changed, said):
    with safe_open(shipped_models()["span-x4"], framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | changed)
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


def test_the_command_lists_what_ships(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["model", "span-x4", "span-x4-fast"]
    assert "Set5 32.20, Set14 28.64" in lines[1]
    assert main(["models", "--json", "--seconds", "20x16"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() == shipped_models().keys()
    assert facts["fsrcnn-x2"]["seconds"] > 0
    assert (facts["span-x2"]["scale"], facts["span-x2"]["masked"]) == (2, False)
    assert facts["span-x4-regions"]["masked"] is True


def test_missing_file():
    with pytest.raises(CheckpointError, match=r"neither a shipped model \(.*rfdn-x4.*\) nor an existing file"):
        load_model("no-such-model")


@pytest.mark.parametrize("content", [b"not a model", b"\x80\x02}q\x00.", b"\xff" * 64])
def test_files_that_are_no_safetensors(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_model(path)


def test_truncated_file(model_file):
    model_file.write_bytes(model_file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_model(model_file)


def test_file_of_something_else(model_file, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(CheckpointError, match="something else"):
        load_model(other)
    rewrite(model_file, config="{")
    with pytest.raises(CheckpointError, match="not a configuration"):
        load_model(model_file)


def test_tensors_of_another_network(model_file):
    rewrite(model_file, config=ModelConfig("rfdn", 4).to_json())
    with pytest.raises(CheckpointError, match="does not fit rfdn"):
        load_model(model_file)


def test_configuration_with_unknown_settings(model_file):
    config = json.loads(ModelConfig("fsrcnn", 2, 8).to_json())
    rewrite(model_file, config=json.dumps(config | {"base": {"os.system": "x"}}))
    with pytest.raises(CheckpointError, match="does not have this setting"):
        load_model(model_file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(model_file, value):
    rewrite(model_file, lambda tensors: tensors["mask.conv2.bias"].fill_(value))
    with pytest.raises(CheckpointError, match=r"mask\.conv2\.bias holds NaN or infinity"):
        load_model(model_file)


def test_writing_into_a_missing_folder_leaves_nothing(network, tmp_path):
    with pytest.raises(InputError, match="does not exist; create it first"):
        save_model(tmp_path / "missing" / "model.safetensors", network, {}, {})
    assert os.listdir(tmp_path) == []


class Evil:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("read", [read_state_dict, load_model])
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_never_executed(tmp_path, read, save):
    path, witness = tmp_path / "evil.pth", tmp_path / "executed"
    save({"weight": Evil(witness)}, path)
    with pytest.raises(CheckpointError):
        read(path)
    assert not witness.exists()


@pytest.mark.parametrize("wrapper", [None, "params", "state_dict", "model"])
def test_published_state_dicts_are_unwrapped(tmp_path, wrapper):
    tensors = {"module.a.weight": torch.arange(3.0), "module.b": torch.ones(2)}
    path = tmp_path / "file.pth"
    torch.save(tensors if wrapper is None else {wrapper: tensors, "epoch": 3}, path)
    state = read_state_dict(path)
    assert list(state) == ["a.weight", "b"]
    assert torch.equal(state["a.weight"], torch.arange(3.0))


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 1}])
def test_files_without_tensors(tmp_path, value):
    path = tmp_path / "file.pth"
    torch.save(value, path)
    with pytest.raises(CheckpointError, match="holds no dictionary of tensors"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 truncated"])
def test_unreadable_published_files(tmp_path, content):
    path = tmp_path / "file.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint: "):
        read_state_dict(path)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_numbers_of_8_bits_are_what_they_say(tmp_path, kind):
    """As programs that save memory store them; PyTorch does not compute with them."""
    state, forward = originals.compact(2)
    narrow = {name: tensor.to(getattr(torch, kind)) for name, tensor in state.items()}
    save_file(narrow, tmp_path / "net.safetensors")
    state.update({name: tensor.float() for name, tensor in narrow.items()})
    image = photographs(12, 15)[:1]
    assert (load_checkpoint(tmp_path / "net.safetensors")(image) - forward(image)).abs().max() < 1e-4


def test_numbers_that_pytorch_cannot_convert_are_named():
    packed = torch.zeros(8, 1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(CheckpointError, match=r"^it: body.0.weight is of float4_e2m1fn_x2, which is not read; save it"):
        check_tensors({"body.0.weight": packed}, "it", 1000)
