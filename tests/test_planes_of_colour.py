"""Networks of grey pictures, or of four channels: each is refused by its channels, in whatever names its file has."""

from __future__ import annotations

import local_originals
import more_originals
import originals
import pytest
import torch

from mga_kernels.checkpoints import recognise
from mga_kernels.errors import CheckpointError

STATES = {
    "Compact": lambda: local_originals.compact(2)[0],
    "SPAN": lambda: local_originals.span(4)[0],
    "SPAN, folded": lambda: local_originals.span_folded(local_originals.span(2)[0]),
    "Real-ESRGAN": lambda: local_originals.rrdbnet()[0],
    "BSRGAN": lambda: local_originals.bsrgan(local_originals.rrdbnet()[0]),
    "ESRGAN": lambda: local_originals.esrgan(local_originals.rrdbnet()[0], 2, 2),
    "EDSR": lambda: local_originals.edsr(2, basicsr=False)[0],
    "RCAN": lambda: originals.rcan(4)[0],
    "RCAN of BasicSR": lambda: originals.rcan(2, basicsr=True)[0],
    "PAN": lambda: originals.pan(4)[0],
    "RFDN": lambda: originals.rfdn(4)[0],
    "IMDN": lambda: originals.imdn(4)[0],
    "IMDN of KAIR": lambda: more_originals.imdn_of_kair(4)[0],
    "MSRResNet": lambda: originals.msrresnet(4)[0],
    "SRResNet": lambda: originals.srresnet()[0],
}


def of_planes(state: dict[str, torch.Tensor], planes: int) -> dict[str, torch.Tensor]:
    """The same network for images of so many channels instead of three."""
    changed = {
        name: tensor.repeat(1, 2, 1, 1)[:, :planes] if tensor.ndim == 4 and tensor.shape[1] == 3 else tensor
        for name, tensor in state.items()
        if not name.startswith(("sub_mean.", "add_mean."))
    }
    last = [name for name, tensor in changed.items() if tensor.ndim == 4 and tensor.shape[0] % 3 == 0][-1]
    for name in (last, last.replace("weight", "bias")):
        if name in changed:
            changed[name] = torch.cat([changed[name]] * 2)[: changed[name].shape[0] // 3 * planes]
    return changed


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize("name", STATES)
def test_a_network_of_other_channels_is_refused_by_them(name, planes):
    said = f"(takes|makes) {planes} channels?, and only RGB is run; a network of RGB also takes grey pictures"
    with pytest.raises(CheckpointError, match=said):
        recognise(of_planes(dict(STATES[name]()), planes), "it")


def test_a_tensor_that_differs_otherwise_is_still_named():
    state = dict(originals.msrresnet(4)[0])
    state["conv_first.weight"] = torch.zeros(8, 3, 5, 5)
    with pytest.raises(CheckpointError, match=r"tensor conv_first.weight is \(8, 3, 5, 5\) in the file"):
        recognise(state, "it")
