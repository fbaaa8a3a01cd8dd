"""PSNR and SSIM as the super-resolution field reports them.

Images are compared as the 8-bit files they become: on the luma of MATLAB's ``rgb2ycbcr`` (BT.601, 16..235, not
rounded), without a border as wide as the scale, in float64.
"""

from __future__ import annotations

import math

import numpy as np

from mga_kernels.errors import InputError

# BT.601 weights of RGB; with an offset of 16, and RGB in 0..255, black is 16 and white 235.
LUMA = tuple(weight / 255 for weight in (65.481, 128.553, 24.966))
GREY = (0.299, 0.587, 0.114)  # the same weights of luma as wide as RGB itself, as printed
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma in 16..235, float64 (H, W), of a uint8 image, (H, W, 3) or (H, W) for three equal channels.

    A floating (H, W) is such luma already.
    """
    if np.issubdtype(image.dtype, np.floating) and image.ndim == 2:
        return image.astype(np.float64)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"luma: expected uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}")
    if image.ndim == 2:
        return 16 + image * sum(LUMA)
    return 16 + image.astype(np.float64) @ np.array(LUMA)


def psnr_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """PSNR in dB of the luma of two uint8 images, ``border`` pixels cut off on every side; inf where they are equal."""
    return _psnr(*_pair("psnr_y", luma(image), luma(reference), border))


def psnr_rgb(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """PSNR in dB over all samples of two uint8 images, ``border`` pixels cut off on every side."""
    for given in (image, reference):
        if given.dtype != np.uint8:
            raise InputError(f"psnr_rgb: expected uint8 images, got {given.dtype}")
    return _psnr(*_pair("psnr_rgb", image.astype(np.float64), reference.astype(np.float64), border))


def ssim_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Mean SSIM (Wang et al., 2004) of the luma of two uint8 images, ``border`` pixels cut off on every side.

    Gaussian window of 11 x 11 and sigma 1.5, moments of the population, only where the window fits; K1 = 0.01,
    K2 = 0.03, L = 255.
    """
    x, y = _pair("ssim_y", luma(image), luma(reference), border)
    if min(x.shape) < _WINDOW:
        size = f"{x.shape[1]}x{x.shape[0]}"
        raise InputError(f"ssim_y: the image is {size} without its border and the window needs {_WINDOW}x{_WINDOW}")
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((numerator / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


def _psnr(x: np.ndarray, y: np.ndarray) -> float:
    return psnr_of(float(np.square(x - y).mean()))


def psnr_of(error: float, least: float = 0.0) -> float:
    """PSNR of a mean squared difference in levels of 0..255, which counts as ``least`` where it is smaller."""
    error = max(error, least)
    return 10 * math.log10(255**2 / error) if error else math.inf


def _pair(name: str, x: np.ndarray, y: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    if x.shape != y.shape:
        raise InputError(f"{name}: the images differ in shape, {x.shape} and {y.shape}")
    if border < 0 or min(x.shape[:2]) <= 2 * border:
        raise InputError(f"{name}: nothing is left of a {x.shape[1]}x{x.shape[0]} image without a border of {border}")
    inner = (slice(border, x.shape[0] - border), slice(border, x.shape[1] - border))
    return x[inner], y[inner]


def _blur(x: np.ndarray) -> np.ndarray:
    offset = np.arange(_WINDOW) - _WINDOW // 2
    weight = np.exp(-(offset**2) / (2 * _SIGMA**2))
    weight /= weight.sum()
    for axis in (0, 1):
        length = x.shape[axis] - _WINDOW + 1
        x = sum(w * x.take(range(i, i + length), axis) for i, w in enumerate(weight))
    return x
