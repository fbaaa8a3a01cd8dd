"""PSNR and SSIM against values worked out by hand, and against scikit-image."""

import math

import numpy as np
import pytest

from mga.evaluation.metrics import luma, psnr_rgb, psnr_y, ssim_y
from mga_kernels.errors import InputError


def noise(seed, height=40, width=50, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def flat(colour, height=20, width=20):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), 235.0),
        ((0, 0, 0), 16.0),
        ((255, 0, 0), 16 + 65.481),
        ((0, 255, 0), 16 + 128.553),
        ((0, 0, 255), 16 + 24.966),
        ((51, 102, 204), 16 + 0.2 * 65.481 + 0.4 * 128.553 + 0.8 * 24.966),
    ],
)
def test_luma_of_matlab(colour, expected):
    assert luma(flat(colour))[0, 0] == pytest.approx(expected, abs=1e-9)


def test_luma_of_grey_is_that_of_equal_channels():
    grey = noise(0)[..., 0]
    np.testing.assert_allclose(luma(grey), luma(np.repeat(grey[..., None], 3, 2)), rtol=0, atol=1e-9)


def test_psnr_by_hand():
    grey, lighter = flat((100, 100, 100)), flat((110, 110, 110))
    assert psnr_rgb(lighter, grey, 2) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_y(lighter, grey, 2) == pytest.approx(20 * math.log10(255 / (10 * 219 / 255)))
    assert psnr_y(grey, grey, 2) == math.inf


def test_the_border_is_left_out():
    x, y = flat((100, 100, 100)), flat((100, 100, 100))
    y[:4], y[-4:], y[:, :4], y[:, -4:] = 0, 0, 0, 0
    assert psnr_y(x, y, 4) == math.inf
    assert psnr_y(x, y, 3) < 40
    assert ssim_y(x, y, 4) == pytest.approx(1)
    assert ssim_y(x, y, 3) < 0.99


def test_ssim_of_flat_images_by_hand():
    a, b = luma(flat((50, 50, 50)))[0, 0], luma(flat((200, 200, 200)))[0, 0]
    c1 = (0.01 * 255) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim_y(flat((50, 50, 50)), flat((200, 200, 200)), 0) == pytest.approx(expected)


@pytest.mark.parametrize(("height", "width"), [(40, 50), (19, 31)])
def test_ssim_equals_scikit_image(height, width):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is only needed to check SSIM against it")
    x = noise(1, height, width)
    y = np.clip(x + np.random.default_rng(2).normal(0, 25, x.shape), 0, 255).round().astype(np.uint8)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    border = 4
    inner = (slice(border, -border), slice(border, -border))
    _, full = metrics.structural_similarity(
        luma(x)[inner], luma(y)[inner], data_range=255, full=True, truncate=3.5, **options
    )
    assert ssim_y(y, x, border) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-10)


def test_psnr_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is only needed to check PSNR against it")
    x = noise(1)
    y = np.clip(x + np.random.default_rng(2).normal(0, 9, x.shape), 0, 255).round().astype(np.uint8)
    inner = (slice(3, -3), slice(3, -3))
    for ours, a, b in ((psnr_y, luma(x), luma(y)), (psnr_rgb, x, y)):
        expected = metrics.peak_signal_noise_ratio(a[inner], b[inner], data_range=255)
        assert ours(y, x, 3) == pytest.approx(expected, abs=1e-9)


def test_what_is_refused():
    x = noise(3)
    with pytest.raises(InputError, match="float32"):
        psnr_y(x.astype(np.float32), x, 2)
    with pytest.raises(InputError, match="differ in shape"):
        psnr_y(x, x[:-1], 2)
    with pytest.raises(InputError, match="nothing is left"):
        psnr_y(x, x, 20)
    with pytest.raises(InputError, match="11x11"):
        ssim_y(x[:12, :12], x[:12, :12], 1)
    with pytest.raises(InputError, match="uint8"):
        psnr_rgb(x / 255, x / 255, 1)
