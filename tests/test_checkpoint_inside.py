"""What programs of training put around a network and beside it: whichever way, the network itself is found."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from typing import Any

import originals
import pytest
import torch
from safetensors.torch import save_file
from test_authors_layout import authors_layout
from torch import Tensor, nn

from mga_kernels.checkpoints import is_whole, load_checkpoint, read_state_dict
from mga_kernels.errors import CheckpointError, CheckpointNote
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

State = dict[str, Tensor]
NETWORK: State = dict(originals.msrresnet(2)[0])
OTHER = {name: tensor + 1 for name, tensor in NETWORK.items()}  # an earlier state of it
DISCRIMINATOR = {"conv0_0.weight": torch.ones(4, 3, 3, 3), "linear1.weight": torch.ones(1, 4)}
VGG = {"features.0.weight": torch.ones(4, 3, 3, 3), "classifier.0.weight": torch.ones(2, 4)}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1e-4}]}


def behind(prefix: str, state: State = NETWORK) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def counted(state: State = NETWORK) -> State:
    """After thop, which leaves its counts in every module, the outermost too."""
    modules = {"", *(name.rpartition(".")[0] + "." for name in state), "recon_trunk.", "recon_trunk.0."}
    return state | {
        f"{m}{what}": torch.zeros(1, dtype=torch.float64) for m in modules for what in ("total_ops", "total_params")
    }


def training(network: Any, **beside: Any) -> dict[str, Any]:
    return {"epoch": 7, "iter": 1000, "optimizer": OPTIMIZER, "best_psnr": 31.4} | {"net": network} | beside


WORDS = (
    "netG G g g_ema generator Generator params-ema params_ema params model model_ema model_state_dict state_dict "
    "state_dict_ema ema ema_model network net net_g netG_ema generator_ema weights module sd student G_ema my_model"
).split()
EMA_NUMBERS = {"decay": torch.tensor(0.999), "num_updates": torch.tensor(7), "step": torch.tensor([7])}
SETTINGS = {"milestones": Counter({1: 1, 2: 1}), "betas": (0.9, 0.99), "device": torch.device("cpu")}
AROUND: dict[str, Any] = {
    **{f"{word}: ": {word: NETWORK} for word in WORDS},
    **{f"{word}. ": behind(f"{word}.") for word in WORDS},
    "thop": counted(),
    "thop behind DataParallel": counted(behind("module.")),
    "thop in a dictionary": {"state_dict": counted()},
    "five deep": {"checkpoint": {"models": {"gan": {"netG": {"state_dict": NETWORK}}}}},
    "dictionaries and prefixes": {"checkpoint": {"state_dict": behind("module.net_g.module._orig_mod.")}},
    "compiled, then parallel": behind("module._orig_mod."),
    "parallel, then compiled": behind("_orig_mod.module."),
    "compiled inside": {n.replace("recon_trunk.", "recon_trunk._orig_mod."): t for n, t in NETWORK.items()},
    "parallel inside": {n.replace("recon_trunk.", "recon_trunk.module."): t for n, t in behind("model.").items()},
    "FSDP": {f"_fsdp_wrapped_module.{n}": t for n, t in NETWORK.items()},
    "averaged model": {"n_averaged": torch.tensor(5)} | behind("module."),
    "averaged model of a parallel one": {"n_averaged": torch.tensor(5)} | behind("module.module."),
    "average behind a prefix": {"ema_model.n_averaged": torch.tensor(5)} | behind("ema_model.module."),
    "epoch among the tensors": NETWORK | {"epoch": torch.tensor(3), "n_averaged": torch.tensor(5), "name": "x"},
    "training": training(NETWORK),
    "training with a schedule": training(NETWORK, scheduler=SETTINGS),
    "GAN": {"netG": NETWORK, "netD": DISCRIMINATOR, "optimizer_G": OPTIMIZER, "optimizer_D": OPTIMIZER},
    "GAN of short names": {"G": NETWORK, "D": DISCRIMINATOR, "D_ema": DISCRIMINATOR},
    "GAN by prefixes": behind("generator.") | behind("discriminator.", DISCRIMINATOR),
    "GAN of two like networks": {"generator": NETWORK, "discriminator": OTHER},
    "teacher beside": {"student": NETWORK, "teacher": OTHER},
    "optimiser by names": {"model": NETWORK, "optimizer": {"state": {n: {"exp_avg": t} for n, t in NETWORK.items()}}},
    "optimiser of like names": {"model": NETWORK, "optimizer": {"momentum": OTHER}},
    "Lightning": {"state_dict": behind("model."), "hyper_parameters": {"lr": 1e-3}, "pytorch-lightning_version": "2.4"},
    "Lightning, all prefixes": {"state_dict": behind("model.net.module."), "loops": {"fit_loop": {"state_dict": {}}}},
    "Lightning GAN": {
        "state_dict": behind("generator.") | behind("discriminator.", DISCRIMINATOR) | behind("loss.vgg.", VGG),
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [SETTINGS],
    },
    "Lightning module is the network": {
        "state_dict": NETWORK
        | behind("criterion.vgg.", VGG)
        | behind("perceptual_loss.", VGG)
        | behind("discriminator.", DISCRIMINATOR)
        | {"val_psnr.total": torch.tensor(3.0)}
    },
    "losses that hold a like network": behind("net.") | behind("loss.teacher.", OTHER),
    "mmagic": {"meta": {"iter": 3}, "state_dict": behind("generator.") | {"step_counter": torch.tensor(4)}},
    "DeepSpeed": {"module": NETWORK, "optimizer": None, "ds_version": "0.1"},
    "parameters": {"model": {name: nn.Parameter(tensor) for name, tensor in NETWORK.items()}},
    "a list": {"networks": [behind("module."), DISCRIMINATOR]},
    "with its optimiser in a list": [NETWORK, OPTIMIZER],
    "the same twice": {"model": NETWORK, "state_dict": NETWORK},
    "equal values twice": {"model": NETWORK, "state_dict": {name: tensor.clone() for name, tensor in NETWORK.items()}},
}
AVERAGED: dict[str, tuple[Any, str, str]] = {
    "params": ({"params": OTHER, "params_ema": NETWORK}, "params_ema", "params"),
    "params-ema": ({"params-ema": NETWORK, "params": OTHER}, "params-ema", "params"),
    "timm": ({"state_dict": OTHER, "state_dict_ema": NETWORK}, "state_dict_ema", "state_dict"),
    "model": ({"model": OTHER, "model_ema": NETWORK, "epoch": 3}, "model_ema", "model"),
    "ema": ({"model": OTHER, "ema": NETWORK}, "ema", "model"),
    "ema of prefixes": (
        {"net": behind("module.", OTHER), "ema_model": behind("module.")},
        "ema_model.module",
        "net.module",
    ),
    "Lightning": ({"state_dict": behind("net.", OTHER) | behind("net_ema.")}, "state_dict.net_ema", "state_dict.net"),
    "G": ({"G": OTHER, "G_ema": NETWORK, "D": DISCRIMINATOR}, "G_ema", "G"),
    "g_ema": ({"g": OTHER, "g_ema": NETWORK, "d": DISCRIMINATOR}, "g_ema", "g"),
    "mmagic": (behind("generator.", OTHER) | behind("generator_ema."), "generator_ema", "generator"),
    "numbers among the tensors": (
        {"state_dict": behind("model.", OTHER) | behind("model_ema.") | behind("model_ema.", EMA_NUMBERS)},
        "state_dict.model_ema",
        "state_dict.model",
    ),
    "swa": ({"net": OTHER, "swa_model": NETWORK}, "swa_model", "net"),
    "counted": ({"net": OTHER, "other": {"n_averaged": torch.tensor(5)} | behind("module.")}, "other.module", "net"),
    "at the top": (OTHER | behind("ema."), "ema", "the one at the top"),
    "camel case": ({"netG": OTHER, "netGEma": NETWORK}, "netGEma", "netG"),
}

FLAT = [
    name
    for name, content in AROUND.items()
    if isinstance(content, dict) and all(map(torch.is_tensor, content.values()))
]


def same(found: Any) -> bool:
    return found.keys() == NETWORK.keys() and all(torch.equal(found[name], NETWORK[name]) for name in NETWORK)


@pytest.mark.parametrize("case", AROUND)
def test_the_network_is_found(tmp_path, case):
    path = tmp_path / "model.ckpt"
    torch.save(AROUND[case], path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no note where there is nothing to choose
        if case == "the same twice":
            warnings.simplefilter("default")
        state = read_state_dict(path)
        network = load_checkpoint(path)
    assert same(state)
    assert (network.config.network, network.config.scale) == ("msrresnet", 2)
    assert torch.equal(network.body.state_dict()["conv_last.weight"], NETWORK["conv_last.weight"])
    assert is_whole(path)


@pytest.mark.parametrize("case", FLAT)
def test_in_safetensors_too(tmp_path, case):
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in AROUND[case].items()}, path)
    assert same(read_state_dict(path))


@pytest.mark.parametrize("case", AVERAGED)
def test_the_average_is_preferred_with_a_note(tmp_path, case):
    content, taken, left = AVERAGED[case]
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.warns(CheckpointNote) as said:
        state = read_state_dict(path)
    assert same(state)
    assert [str(note.message) for note in said] == [
        f"checkpoint: {path}: taken is {taken}, which is averaged over the training, not {left}"
    ]


def test_a_generator_is_preferred_with_a_note(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"generator": NETWORK, "coarse": OTHER}, path)
    with pytest.warns(CheckpointNote, match="taken is generator, not coarse"):
        assert same(read_state_dict(path))


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"model": NETWORK, "best_model": OTHER}, "model and best_model"),
        ({"net_a": behind("module."), "net_b": behind("module.", OTHER)}, "net_a.module and net_b.module"),
        (behind("G_A2B.") | behind("G_B2A.", OTHER), "G_A2B and G_B2A"),
        ({"ema_0.999": NETWORK, "ema_0.9999": OTHER}, "ema_0.999 and ema_0.9999"),
        (
            {f"stage{i}": behind("", {n: t + i for n, t in NETWORK.items()}) for i in range(5)},
            "stage0, stage1, stage2 and more",
        ),
    ],
)
def test_several_are_named(tmp_path, content, places):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(
        CheckpointError, match=rf"holds several networks, {places}, and does not tell which one is meant; "
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "around",
    [lambda s: {"G": s, "D": DISCRIMINATOR}, lambda s: {"state_dict": {f"model.{n}": t for n, t in s.items()}}],
)
def test_mask_guided_networks_are_one(tmp_path, around):
    """Not its Base-Net alone, which is a network that is known."""
    torch.manual_seed(0)
    made = MaskGuidedNetwork(ModelConfig("rfdn", 4, split=(2, 1))).eval()
    path = tmp_path / "model.pth"
    torch.save(around(authors_layout(made)), path)
    assert load_checkpoint(path).config.split == (2, 1)
    assert not is_whole(path)


def test_what_is_wrong_with_the_chosen_one_is_an_error_and_with_the_others_none(tmp_path):
    broken = NETWORK | {"conv_last.bias": torch.full((3,), float("nan"))}
    path = tmp_path / "model.pth"
    torch.save({"params_ema": NETWORK, "params": broken}, path)
    with pytest.warns(CheckpointNote):
        assert same(read_state_dict(path))
    torch.save({"params_ema": broken, "params": NETWORK}, path)
    with pytest.raises(CheckpointError, match=r"conv_last\.bias holds NaN"):
        read_state_dict(path)
    torch.save({"net": NETWORK | {"extra.weight": torch.ones(3)}}, path)
    with pytest.raises(CheckpointError, match=r"tensor extra\.weight is \(3,\) in the file and unknown"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 3, "iter": 9, "optimizers": [OPTIMIZER], "schedulers": [SETTINGS]},
            r"state of a training \(optimizers, ",
        ),
        (OPTIMIZER, r"state of a training \(state, param_groups\) and no network; give the file of its weights"),
        ({"netD": DISCRIMINATOR}, "is a discriminator, the half of a GAN that only judges"),
        (
            {"model": {"layer": {"encoder.weight": torch.ones(2, 2, 3, 3)}}},
            r"no network that is known: it has 1 tensors",
        ),
    ],
)
def test_files_without_a_network(tmp_path, content, message):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_names_of_an_unknown_network_are_shown_without_what_is_around(tmp_path):
    path = tmp_path / "model.pth"
    state = OrderedDict({"module.body.weight": torch.ones(2, 2, 3, 3), "module.body.total_ops": torch.ones(1)})
    torch.save({"params_ema": state, "optimizer": OPTIMIZER}, path)
    with pytest.raises(CheckpointError, match=r"it has 1 tensors \(body\.weight\), from 2 to 2 channels"):
        load_checkpoint(path)


def test_how_tensors_lie_in_a_file_has_no_part_in_the_result(tmp_path):
    four = {name: tensor for name, tensor in NETWORK.items() if tensor.ndim == 4}
    turned = {name: tensor.transpose(0, 1).contiguous().transpose(0, 1) for name, tensor in four.items()}
    torch.save(NETWORK, tmp_path / "plain.pth")
    torch.save({**NETWORK, **turned}, tmp_path / "turned.pth")
    assert not all(tensor.is_contiguous() for tensor in torch.load(tmp_path / "turned.pth").values())
    loaded = load_checkpoint(tmp_path / "turned.pth")
    assert all(tensor.is_contiguous() for tensor in loaded.state_dict().values())
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(image), load_checkpoint(tmp_path / "plain.pth")(image))
