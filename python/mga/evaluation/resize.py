"""Bicubic resampling by the convention of MATLAB's ``imresize``, by which the field makes its LR images.

The kernel is Keys' cubic with a = -0.5, widened by the scale when shrinking (antialiasing); sample positions are
pixel centres; borders are mirrored with the edge pixel repeated. For uint8 input each of the two passes is rounded
and saturated, which is what makes the result equal to published LR files bit for bit.
"""

from __future__ import annotations

import numpy as np


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _taps(length: int, new_length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights, both (new_length, taps), of one axis."""
    stretch = max(1.0, 1.0 / scale)
    width = 4.0 * stretch
    centre = (np.arange(new_length) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    weight = _cubic((centre[:, None] - index) / stretch) / stretch
    weight /= weight.sum(axis=1, keepdims=True)
    period = index % (2 * length)
    return np.where(period < length, period, 2 * length - 1 - period), weight


def _resize_axis(image: np.ndarray, axis: int, new_length: int, scale: float) -> np.ndarray:
    index, weight = _taps(image.shape[axis], new_length, scale)
    used = np.abs(weight).max(axis=0) > 0
    moved = np.moveaxis(image, axis, 0)
    result = np.zeros((new_length, *moved.shape[1:]))
    for tap in np.flatnonzero(used):
        result += weight[:, tap].reshape(-1, *[1] * (moved.ndim - 1)) * moved[index[:, tap]]
    return np.moveaxis(result, 0, axis)


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resample (H, W) or (H, W, C) by ``scale`` to ceil(scale*H) x ceil(scale*W).

    uint8 in, uint8 out (rounded half up and saturated after each pass, as MATLAB does); floating in, float64 out.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"imresize: expected a non-empty (H, W) or (H, W, C) array, got shape {image.shape}")
    if not scale > 0:
        raise ValueError(f"imresize: scale must be positive, got {scale}")
    # MATLAB starts with the axis that shrinks most; both shrink alike here, and then it takes rows first.
    for axis in (0, 1):
        resized = _resize_axis(image, axis, int(np.ceil(scale * image.shape[axis] - 1e-9)), scale)
        image = np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else resized
    return image


def shrink_for_scale(image: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Crop an HR image to a multiple of ``scale`` and make its LR image: returns (hr, lr)."""
    height, width = (side - side % scale for side in image.shape[:2])
    if height == 0 or width == 0:
        raise ValueError(f"shrink_for_scale: a {image.shape[1]}x{image.shape[0]} image is too small for x{scale}")
    hr = image[:height, :width]
    return hr, imresize(hr, 1.0 / scale)
