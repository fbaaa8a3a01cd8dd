"""IMDN: what its authors published, in the Base-Net that has all of their blocks, and its gates in our convolutions."""

from __future__ import annotations

import pytest
import torch
from network_zoo import random_model
from test_networks import _set5

from mga.evaluation.metrics import psnr_y
from mga_kernels import MaskGuidedSR
from mga_kernels.architectures.imdn.cpu import ImdnWeights
from mga_kernels.checkpoints import read_state_dict
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.runtimes.cpu import choose
from mga_kernels.runtimes.cpu.pairs import Grid


@pytest.mark.parametrize(("name", "expected"), [("butterfly", 28.559), ("woman", 30.751)])
def test_the_published_file_restores_set5(shared_data, name, expected):
    """The file loads as it is. The mean over the five images is 32.21 dB, the figure that its authors publish."""
    model = MaskGuidedNetwork(ModelConfig("imdn", 4, split=(6, 1))).eval().requires_grad_(False)
    model.base.load_state_dict(read_state_dict(shared_data / "data/checkpoints/imdn_x4_Zheng222.pth"))
    lr, hr = _set5(shared_data, name)
    restored = model(torch.from_numpy(lr).permute(2, 0, 1)[None] / 255, variant="base")
    restored = (restored[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert psnr_y(restored, hr, border=4) == pytest.approx(expected, abs=0.005)


def test_parts_count_what_the_published_file_counts():
    """715,176 parameters with 6 blocks. Each block is 104,020 of them, and its part of the fusion 64 x 64."""
    with torch.device("meta"):
        published = MaskGuidedNetwork(ModelConfig("imdn", 4, split=(6, 1))).base
        default = MaskGuidedNetwork(ModelConfig("imdn", 4)).base
    counts = [sum(parameter.numel() for parameter in base.parameters()) for base in (published, default)]
    assert counts == [715_176, 715_176 - 2 * (104_020 + 64 * 64)]


def gates_of(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of an image with these means and variances (64): as a plan makes them of sums and squares, and as the module."""
    base = random_model("imdn", 2).base
    attention = base.IMDB1.cca.double()
    for layer in (attention.conv_du[0], attention.conv_du[2]):
        layer.weight.mul_(30)
    wanted = attention.conv_du((variance.clamp(min=0).sqrt() + mean)[None, :, None, None]).flatten()
    attention.float()
    weights = ImdnWeights(WholeNetwork(WholeConfig("imdn", 2, 1)).halves(), choose.STORAGES["float32"])
    weights.prepare_base(base)
    total = 35 * torch.stack([mean, variance + mean**2])
    found, offsets = weights.trunk.blocks[0].gates(Grid(1, (5, 7)), list(total.split(16, dim=1)), None)
    assert not offsets.any()
    return found[0].double(), wanted


def test_gates_keep_a_small_deviation_beside_a_large_mean(generator):
    """In float32 the square of the mean would leave nothing of the variance."""
    mean = 50 + torch.rand(64, dtype=torch.float64, generator=generator)
    deviation = 0.05 * torch.rand(64, dtype=torch.float64, generator=generator)
    mean[::2] *= -1
    found, wanted = gates_of(mean, deviation**2)
    flat, _ = gates_of(mean, 0 * deviation)
    assert (found - wanted).abs().max() < 1e-4
    assert (found - flat).abs().max() > 1e-2, "the deviation shows"


def test_what_rounding_takes_below_zero_is_no_variance():
    mean = torch.linspace(-2, 2, 64, dtype=torch.float64)
    found, wanted = gates_of(mean, torch.full_like(mean, -1e-12))
    assert (found - wanted).abs().max() < 1e-5


def test_what_is_not_finite_is_not_hidden_by_a_gate():
    mean = torch.linspace(-2, 2, 64, dtype=torch.float64)
    mean[5] = torch.nan
    found, wanted = gates_of(mean, torch.ones_like(mean))
    assert wanted.isnan().all()
    assert found.isnan().all()


@pytest.mark.parametrize(
    ("scale", "settings", "dtype", "reason"),
    [
        (8, {}, "float32", "there are none for a pixel shuffle of 8"),
        (4, {"channels": 21}, "bfloat16", "there are none for 21 channels, an odd number"),
        (4, {"squeezed": 0}, "float32", "there are none for IMDN without attention; simplified_imdn is that"),
    ],
)
def test_what_our_convolutions_cannot_run_is_refused(scale, settings, dtype, reason):
    network = WholeNetwork(WholeConfig("imdn", scale, 1, settings))
    with pytest.raises(InputError, match=rf"runtime 'own' cannot run imdn here: {reason}"):
        MaskGuidedSR(network, device="cpu", runtime="own", dtype=dtype)
    model = MaskGuidedSR(network, device="cpu")
    assert model.upscale(torch.zeros(5, 6, 3, dtype=torch.uint8).numpy()).shape == (5 * scale, 6 * scale, 3)
