"""Files of SRGAN and of KAIR's IMDN, and weights that a training has left in parts, by weight or spectral norm."""

from __future__ import annotations

from collections.abc import Callable

import local_originals
import more_originals
import numpy as np
import originals
import pytest
import torch
from network_zoo import photographs
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, recognise
from mga_kernels.errors import CheckpointError, InputError

CASES = {
    "SRGAN x2": (lambda: more_originals.srgan(2, blocks=3), ("srresnet", 2, 3)),
    "SRGAN x4": (more_originals.srgan, ("srresnet", 4, 2)),
    "SRGAN x8, standardised": (lambda: more_originals.srgan(8, nested=True), ("srresnet", 8, 2)),
    "SRGAN x2, standardised": (lambda: more_originals.srgan(2, True, 3), ("srresnet", 2, 3)),
    "IMDN of KAIR x2": (lambda: more_originals.imdn_of_kair(2), ("simplified_imdn", 2, 2)),
    "IMDN of KAIR x3": (lambda: more_originals.imdn_of_kair(3, 3, 24), ("simplified_imdn", 3, 3)),
    "IMDN of KAIR x4": (lambda: more_originals.imdn_of_kair(4), ("simplified_imdn", 4, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_network_that_was_published(tmp_path, case):
    make, expected = CASES[case]
    state, forward = make()
    torch.save({"params": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "net.pth")
    network = load_checkpoint(tmp_path / "net.pth")
    assert (network.config.network, network.config.scale, network.config.blocks) == expected
    image = photographs(15, 22)
    wanted = forward(image)
    assert wanted.std() > 0.05, "a flat picture proves nothing"
    assert (network(image) - wanted).abs().max() <= 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("nested", [False, True])
def test_a_photograph_through_srgan_is_the_networks_picture(nested):
    """Our convolutions have no hyperbolic tangent, so it runs otherwise, and says why where they are asked for."""
    state, forward = more_originals.srgan(4, nested)
    network = recognise(dict(state), "it")
    image = np.random.default_rng(3).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    wanted = forward(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).numpy() * 255
    found = MaskGuidedSR(network, device="cpu").upscale(image)
    assert np.abs(found - wanted).max() < 0.51
    with pytest.raises(InputError, match="cannot run srresnet here: there are none that end in a hyperbolic tangent"):
        MaskGuidedSR(network, device="cpu", runtime="own")


def test_an_imdn_of_kair_that_keeps_all_is_refused():
    state = dict(more_originals.imdn_of_kair(2)[0])
    state["model.1.sub.0.conv4.weight"] = torch.zeros(16, 12, 3, 3)
    with pytest.raises(CheckpointError, match="looks like IMDN, but it keeps 16 of 16 channels in each step"):
        recognise(state, "it")


def modules_of(state: dict[str, Tensor]) -> nn.Module:
    """Modules whose state dict has these names; only convolutions compute."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        if last != "weight":
            continue
        parent = root
        for segment in path[:-1]:
            if segment not in parent._modules:
                parent.add_module(segment, nn.Module())
            parent = parent.get_submodule(segment)
        bias = state.get(f"{'.'.join(path)}.bias")
        if tensor.ndim == 1:
            layer: nn.Module = nn.PReLU(len(tensor))
        else:
            layer = nn.Conv2d(tensor.shape[1], len(tensor), tensor.shape[2:], bias=bias is not None)
        layer.load_state_dict({"weight": tensor} | ({} if bias is None else {"bias": bias}))
        parent.add_module(path[-1], layer)
    return root.requires_grad_(False)


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": weight_norm,
    "weight_norm of all": lambda layer: weight_norm(layer, dim=None),
    "weight_norm of inputs": lambda layer: weight_norm(layer, dim=1),
    "spectral_norm": lambda layer: spectral_norm(layer, n_power_iterations=8),
    "parametrised weight_norm": parametrizations.weight_norm,
    "parametrised spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["compact", "rrdbnet", "msrresnet"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_weights_in_parts_are_put_together_as_pytorch_does(tmp_path, name, norm):
    state, forward = {
        "compact": lambda: local_originals.compact(2),
        "rrdbnet": local_originals.rrdbnet,
        "msrresnet": lambda: originals.msrresnet(2),
    }[name]()
    network = modules_of(state)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    torch.manual_seed(0)
    for layer in convolutions:
        NORMS[norm](layer)
        layer.requires_grad_(False)
        layer(torch.zeros(1, layer.in_channels, 9, 9))  # a step of what finds the vectors of spectral norms
    for key, parameter in network.named_parameters():
        if key.endswith(("weight_g", "original0")):
            parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    network.eval()
    for layer in convolutions:
        layer(torch.zeros(1, layer.in_channels, 9, 9))  # which makes its weight
    for key in state:
        module, _, kind = key.rpartition(".")
        state[key] = getattr(network.get_submodule(module), kind).detach().clone()
    parts = {f"generator.module.{key}": tensor for key, tensor in network.state_dict().items()}
    assert len(parts) > len(state)
    torch.save({"state_dict": parts}, tmp_path / "net.pth")
    image = photographs(15, 22)
    wanted = forward(image)
    assert (load_checkpoint(tmp_path / "net.pth")(image) - wanted).abs().max() <= 2e-5 * wanted.abs().max()


def in_parts() -> dict[str, Tensor]:
    state = dict(local_originals.compact(2)[0])
    weight = state.pop("body.2.weight")
    return state | {"body.2.weight_v": weight, "body.2.weight_g": weight.flatten(1).norm(dim=1)[:, None, None, None]}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"body.2.weight_g": torch.ones(3, 1, 1, 1)},
            r"tensor body.2.weight is \(8, 8, 3, 3\), and its gain is \(3, 1",
        ),
        ({"body.2.weight_g": torch.ones(8)}, r"tensor body.2.weight is \(8, 8, 3, 3\), and its gain is \(8,\)"),
        ({"body.2.weight_v": torch.zeros(8, 8, 3, 3)}, "tensor body.2.weight is damaged: its normalisation divides by"),
        ({"body.2.weight_v": torch.zeros(0, 8, 3, 3)}, "and its gain is"),
        ({"body.2.weight": torch.zeros(8, 8, 3, 3)}, "is of no network that is known"),
        ({"body.2.weight_g": None}, "is of no network that is known"),
        ({"body.2.weight_v": torch.zeros(1).expand(1 << 30)}, "declares [0-9,]+ bytes of tensors and has"),
        (
            {"body.2.weight_g": None, "body.2.weight_orig": torch.ones(8, 8, 3, 3), "body.2.weight_u": torch.ones(7)},
            "tensor body.2.weight and the vectors of its spectral normalisation do not fit each other",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, changed, sentence):
    state = {name: tensor for name, tensor in (in_parts() | changed).items() if tensor is not None}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "net.pth")
