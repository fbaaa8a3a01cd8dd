"""Between two networks: Real-ESRGAN's strength of denoising, which users know as -dn."""

from __future__ import annotations

import local_originals as originals
import numpy as np
import pytest
import torch
from network_zoo import photographs
from PIL import Image
from test_local_networks import tempered

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.errors import CheckpointError, InputError

SETTINGS = {"device": "cpu", "dtype": "float32", "runtime": "pytorch"}


@pytest.fixture
def pair(tmp_path):
    """As it is published: two files, of which the name of one is known from that of the other."""
    states = [dict(tempered(originals.compact(4, 3))[0]) for _ in range(2)]
    for name, tensor in states[1].items():
        states[1][name] = tensor.roll(1, 0) if tensor.ndim == 4 else tensor + 0.05
    paths = [tmp_path / f"realesr-general{wdn}-x4v3.pth" for wdn in ("", "-wdn")]
    for state, path in zip(states, paths, strict=True):
        torch.save({"params": state}, path)
    return paths, states


@pytest.mark.parametrize("strength", [0, 0.3, 0.5, 1])
def test_weights_are_mixed_one_by_one(tmp_path, pair, strength):
    (general, _), (strong, weak) = pair
    mixed = {name: strength * tensor + (1 - strength) * weak[name] for name, tensor in strong.items()}
    torch.save(mixed, tmp_path / "mixed.pth")
    image = photographs(12, 14)
    expected = MaskGuidedSR.from_checkpoint(tmp_path / "mixed.pth", **SETTINGS)(image)
    found = MaskGuidedSR.from_checkpoint(general, denoise=strength, **SETTINGS)(image)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-4
    plain = MaskGuidedSR.from_checkpoint(general, **SETTINGS)(image)
    assert torch.equal(found, plain) is (strength == 1)


def test_the_command(tmp_path, pair):
    (general, wdn), _ = pair
    picture = (photographs(20, 24)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(picture).save(tmp_path / "a.png")
    words = ["upscale", tmp_path / "a.png", "--model", general, "--denoise", "0.25", "--runtime", "pytorch"]
    assert main([*map(str, words), "--dtype", "float32", "-o", str(tmp_path / "b.png")]) == 0
    found = np.asarray(Image.open(tmp_path / "b.png"))
    expected = MaskGuidedSR.from_checkpoint(general, denoise=0.25, denoise_source=wdn, **SETTINGS).upscale(picture)
    assert np.array_equal(found, expected)


def test_what_is_no_pair(tmp_path, pair):
    (general, wdn), _ = pair
    torch.save(dict(originals.compact(4, 4)[0]), tmp_path / "deep.pth")
    with pytest.raises(CheckpointError, match=r"no pair: they are compact x4 of 3 blocks, .* compact x4 of 4 blocks"):
        MaskGuidedSR.from_checkpoint(general, denoise=0.5, denoise_source=tmp_path / "deep.pth", **SETTINGS)
    for strength in (-0.1, 1.5, float("nan"), "much", True):
        with pytest.raises(InputError, match="denoise is a strength from 0 to 1, got"):
            MaskGuidedSR.from_checkpoint(general, denoise=strength, **SETTINGS)
    for alone in (wdn, tmp_path / "deep.pth", "span-x4"):
        with pytest.raises(InputError, match="needs the network that denoises least; name it by denoise_source="):
            MaskGuidedSR.from_checkpoint(alone, denoise=0.5, **SETTINGS)
    wdn.unlink()
    with pytest.raises(InputError, match=r"and there is no .*realesr-general-wdn-x4v3\.pth; name it"):
        MaskGuidedSR.from_checkpoint(general, denoise=0.5, **SETTINGS)
    with pytest.raises(InputError, match="give denoise, from 0 to 1, too"):
        MaskGuidedSR.from_checkpoint(general, denoise_source=wdn, **SETTINGS)
    with pytest.raises(InputError, match="fsrcnn-x4 has a mask; leave denoise out"):
        MaskGuidedSR.from_checkpoint("fsrcnn-x4", denoise=0.5, denoise_source=general, **SETTINGS)
