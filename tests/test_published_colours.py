"""Colours of published networks: luma and its planes, by formulas and in their own conventions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mga.evaluation.resize import imresize
from mga_kernels.networks.colour import decode, encode, rgb_to_ycbcr, ycbcr_to_rgb

RGB = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(3))


def test_colours_by_their_formulas():
    rgb = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]).T[None, :, :, None]
    luma = torch.tensor([65.481, 128.553, 24.966, 0, 219]) + 16
    assert (255 * encode(rgb, "y", "16..235")[0, 0, :, 0] - luma).abs().max() < 1e-4
    planes = rgb_to_ycbcr(rgb)
    assert planes[0, :, 0, 0].tolist() == pytest.approx([0.299, 0.331264, 1.0], abs=1e-5)
    assert planes[0, :, 3, 0].tolist() == pytest.approx([0, 0.5, 0.5])
    assert (ycbcr_to_rgb(planes) - rgb).abs().max() < 1e-6
    clipped = encode(rgb, "ycbcr", "clipped")
    assert clipped.min() == pytest.approx(16 / 255)
    assert clipped[:, :1].max() == pytest.approx(235 / 255)
    assert clipped[:, 1:].max() == pytest.approx(240 / 255)


def test_the_planes_that_luma_lacks_are_enlarged_by_bicubic():
    grey = torch.full((1, 1, 48, 40), 0.4)
    result = rgb_to_ycbcr(decode(grey, "y", "0..1", RGB, 2))
    planes = rgb_to_ycbcr(RGB)[0, 1:].permute(1, 2, 0).double().numpy()
    inner = (slice(6, -6), slice(6, -6))
    expected = imresize(planes, 2.0)[inner]
    assert np.abs(result[0, 1:].permute(1, 2, 0).numpy()[inner] - expected).max() < 1e-5
    assert (result[:, :1] - 0.4).abs().max() < 1e-6
