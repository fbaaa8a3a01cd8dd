"""spandrel loads the networks that are recognised here, and what it has loaded runs here. Skipped without it."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import originals
import pytest
import torch

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import InputError

RGB = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(3))
MODULE = "mga_kernels.checkpoints.spandrel"


@pytest.fixture(scope="module")
def spandrel():
    try:
        import spandrel
    except (ImportError, RuntimeError) as problem:
        pytest.skip(f"spandrel cannot be imported: {problem}")
    return spandrel


@pytest.fixture(scope="module")
def registry(spandrel):
    """A registry of its own with our networks behind those of spandrel."""
    from mga_kernels.checkpoints.spandrel import register

    registry = spandrel.ArchRegistry()
    registry.add(*spandrel.MAIN_REGISTRY.architectures("insertion"))
    added = {support.architecture.name for support in register(registry)}
    local = {"EDSR", "RRDBNet", "SPAN", "SRVGGNetCompact"}
    assert added == local | {"FSRCNN", "IMDN", "MSRResNet", "PAN", "RCAN", "RFDN", "SRResNet"}
    assert register(registry) == []
    return registry


def test_without_spandrel_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError, match=r"spandrel cannot be imported .*pip install 'mga_kernels\[spandrel\]'"):
        __import__(MODULE)


@pytest.mark.parametrize("name", ["pan", "msrresnet", "rcan"])
def test_what_is_recognised_here_is_loaded_there(spandrel, registry, name):
    state, forward = getattr(originals, name)(4)
    if name == "rcan":  # which spandrel knows itself, and whose values the random weights carry far outside of 0..1
        state = {key: tensor / 4 if key.startswith("tail") else tensor for key, tensor in state.items()}
    descriptor = spandrel.ModelLoader(device="cpu", registry=registry).load_from_state_dict(dict(state))
    assert (descriptor.scale, descriptor.input_channels, descriptor.output_channels) == (4, 3, 3)
    expected = load_from(state)(RGB)
    with torch.no_grad():
        assert (descriptor(RGB.clone()) - expected.clamp(0, 1)).abs().max() < 1e-5
    if name != "rcan":
        assert descriptor.architecture.id.startswith("mga_kernels.")
        assert (forward(RGB).clamp(0, 1) - expected.clamp(0, 1)).abs().max() < 1e-4
    model = MaskGuidedSR.from_checkpoint(descriptor, device="cpu", dtype="float32")
    assert model.network == name
    assert model.config.original is None, "our own"
    assert (model(RGB) - expected.clamp(0, 1)).abs().max() < 1e-4


def load_from(state):
    from mga_kernels.checkpoints import recognise

    return recognise(dict(state), "it")


def compact(spandrel, scale: int):
    """A small network with random weights, as spandrel loads it."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(0)
    network = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=scale)
    return spandrel.ModelLoader(device="cpu").load_from_state_dict(network.state_dict())


def test_other_networks_run_as_they_are(spandrel, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._our_own", lambda *_: None)  # as if it were not known here
    descriptor = compact(spandrel, 2)
    with torch.no_grad():
        expected = descriptor(RGB.clone())
    assert 0.05 < expected.std()
    model = MaskGuidedSR.from_checkpoint(descriptor, device="cpu", dtype="float32", runtime="pytorch")
    assert (model.network, model.scale, model.whole) == (descriptor.architecture.name, 2, True)
    assert (model(RGB) - expected).abs().max() < 1e-6
    picture = (RGB[0].permute(1, 2, 0) * 255).round().byte().numpy()
    with torch.no_grad():
        wanted = descriptor(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    wanted = (wanted[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.abs(model.upscale(picture).astype(int) - wanted).max() <= 1
    with pytest.raises(InputError, match="has no mask"):
        model(RGB, k=3)
    descriptor.model.register_forward_pre_hook(lambda _, given: (given[0].zero_(),))
    given = RGB.clone().contiguous(memory_format=torch.channels_last)  # which is not copied on the way
    zeroed = MaskGuidedSR.from_checkpoint(descriptor, device="cpu", dtype="float32", runtime="pytorch")(given)
    assert not torch.equal(zeroed, model(given)), "what hangs on a network is copied with it"
    assert torch.equal(given, RGB), "what a network writes into its input stays there"


@pytest.mark.parametrize("ours", [True, False])
def test_what_spandrel_loaded_stays_as_it_is_and_can_be_copied(spandrel, registry, ours, monkeypatch):
    if ours:
        descriptor = spandrel.ModelLoader(device="cpu", registry=registry).load_from_state_dict(originals.pan(4)[0])
    else:
        monkeypatch.setattr(f"{MODULE}._our_own", lambda *_: None)
        descriptor = compact(spandrel, 2)
    module = descriptor.model.bfloat16().train().requires_grad_(True)
    before = {name: (p.dtype, p.data_ptr(), p.requires_grad, p.stride()) for name, p in module.named_parameters()}
    model = MaskGuidedSR.from_checkpoint(descriptor, device="cpu", dtype="float32", runtime="pytorch")
    picture = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    expected = model.upscale(picture)
    after = {name: (p.dtype, p.data_ptr(), p.requires_grad, p.stride()) for name, p in module.named_parameters()}
    assert after == before
    assert module.training
    assert np.array_equal(copy.deepcopy(model).upscale(picture), expected)
    if ours:
        assert np.array_equal(pickle.loads(pickle.dumps(model)).upscale(picture), expected)
    else:  # spandrel's descriptor holds a function that cannot
        with pytest.raises(InputError, match=r"holds what cannot be pickled .*load its file in the other process"):
            pickle.dumps(model)


def test_what_cannot_run_here(spandrel):
    assert load_checkpoint(compact(spandrel, 1)).config.scale == 1
    with pytest.raises(InputError, match=r"x5 of 3 to 3 channels; expected one of x1, x2, x3, x4, x8, x16 of RGB"):
        load_checkpoint(compact(spandrel, 5))
    with pytest.raises(InputError, match="colour cannot be given, because it is of a network that spandrel loaded"):
        load_checkpoint(compact(spandrel, 2), colour="rgb")
    with pytest.raises(InputError, match="expected an ImageModelDescriptor, got ModelLoader"):
        load_checkpoint(spandrel.ModelLoader(device="cpu"))
    with pytest.raises(InputError, match="expected a path or what spandrel loaded, got int"):
        load_checkpoint(3)
