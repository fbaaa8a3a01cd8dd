"""IMDN: what its authors published, in the Base-Net that has all of their blocks."""

from __future__ import annotations

import pytest
import torch
from test_networks import _set5

from mga.evaluation.metrics import psnr_y
from mga_kernels.checkpoints import read_state_dict
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig


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
