"""Crops in colours that photographs hardly have."""

from __future__ import annotations

import numpy as np

from ..evaluation.metrics import GREY

LUMA = np.array(GREY, np.float32)
YIQ_TO_RGB = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]], np.float32)

Images = tuple[np.ndarray, np.ndarray]


def recoloured(hr: np.ndarray, lr: np.ndarray, rng: np.random.Generator) -> Images:
    """The crop in other colours; uint8 (sH, sW, 3) and (H, W, 3), as they came.

    Each way is an affine map of a pixel's colour, which commutes with shrinking, and its results are brought into
    0..255 by another one, not by clipping, so the LR image remains the HR image shrunk, but for rounding.
    """
    way = rng.integers(3)
    if way == 0:
        matrix = np.eye(3, dtype=np.float32)[rng.permutation(3)] * rng.choice([-1, 1], (3, 1), p=[0.25, 0.75])
    elif way == 1:
        matrix = _hue_and_saturation(rng)
    else:  # two colours, and what lies between them
        matrix = rng.normal(size=(3, 1)).astype(np.float32) * LUMA
    images = [image.astype(np.float32) @ matrix.T for image in (hr, lr)]
    low, high = (np.stack([end(image, (0, 1)) for image in images]) for end in (np.min, np.max))
    low, high = low.min(0), high.max(0)
    wanted = np.sort(255 * colour_values(rng, 2), 0) if way != 1 else np.stack([low.clip(0, 255), high.clip(0, 255)])
    factor = (wanted[1] - wanted[0]) / np.maximum(high - low, 1.0)
    return tuple(  # type: ignore[return-value]
        np.rint((image - low) * factor + wanted[0]).clip(0, 255).astype(np.uint8) for image in images
    )


def _hue_and_saturation(rng: np.random.Generator) -> np.ndarray:
    angle, saturation = 2 * np.pi * rng.random(), 3 * rng.random()
    turn = np.eye(3)
    turn[1:, 1:] = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (YIQ_TO_RGB @ turn @ np.linalg.inv(YIQ_TO_RGB)).astype(np.float32)


def colour_values(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) values in 0..1, a third of them 0 or 1: vivid colours lie at the ends."""
    values = rng.random((count, 3), np.float32)
    return np.where(rng.random((count, 3)) < 1 / 3, np.rint(values), values)
