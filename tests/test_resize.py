"""MATLAB-convention bicubic: against a direct sum in float64, and bit for bit against published LR files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from mga.evaluation.resize import imresize, shrink_for_scale


def direct(signal: np.ndarray, scale: float) -> np.ndarray:
    """One axis by the definition: every source pixel, mirrored, weighted by the cubic kernel."""
    stretch, length, result = max(1, 1 / scale), len(signal), []
    for i in range(math.ceil(scale * length - 1e-9)):
        centre, total, weights = (i + 0.5) / scale - 0.5, 0.0, 0.0
        for j in range(math.floor(centre - 2 * stretch) - 1, math.ceil(centre + 2 * stretch) + 2):
            x = abs(centre - j) / stretch
            near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            weight = near if x <= 1 else far if x <= 2 else 0.0
            k = j % (2 * length)
            total += weight * signal[k if k < length else 2 * length - 1 - k]
            weights += weight
        result.append(total / weights)
    return np.array(result)


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 1 / 2, 0.7, 2, 3])
@pytest.mark.parametrize("length", [1, 3, 17])
def test_an_axis_is_the_weighted_sum_of_the_definition(scale, length):
    signal = np.random.default_rng(0).random(length)
    expected = direct(signal, scale)
    image = imresize(np.tile(signal, (4, 1)), scale)
    np.testing.assert_allclose(image, np.tile(expected, (image.shape[0], 1)), atol=1e-12)
    np.testing.assert_allclose(imresize(np.tile(signal[:, None], (1, 4)), scale)[:, 0], expected, atol=1e-12)


def test_uint8_is_rounded_after_each_pass():
    image = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    rows = np.clip(np.floor(np.stack([direct(column, 0.5) for column in image.T.astype(float)], 1) + 0.5), 0, 255)
    expected = np.clip(np.floor(np.stack([direct(row, 0.5) for row in rows]) + 0.5), 0, 255)
    np.testing.assert_array_equal(imresize(image, 0.5), expected.astype(np.uint8))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("testset", "name"), [("Set5", "bird"), ("Set14", "bridge"), ("B100", "101085")])
def test_lr_files_are_reproduced_bit_for_bit(shared_data, testset, name, scale):
    folder = shared_data / "data/testsets" / testset
    hr, lr = shrink_for_scale(np.array(Image.open(folder / f"HR/{name}.png")), scale)
    published = np.array(Image.open(folder / f"LR_bicubic/X{scale}/{name}x{scale}.png"))
    np.testing.assert_array_equal(lr, published)
    assert hr.shape[:2] == tuple(scale * side for side in lr.shape[:2])


@pytest.mark.parametrize("shape", [(0, 4, 3), (4,)])
def test_impossible_arrays_are_refused(shape):
    with pytest.raises(ValueError, match="imresize: expected"):
        imresize(np.zeros(shape), 0.5)


def test_an_image_smaller_than_the_scale_is_refused():
    with pytest.raises(ValueError, match="too small for x4"):
        shrink_for_scale(np.zeros((3, 9, 3), np.uint8), 4)
