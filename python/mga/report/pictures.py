"""Pictures for the page: the place where two images differ most, the mask as a veil, and data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..drawing.overlay import ramp
from ..evaluation.metrics import luma

CROP = 384  # pixels of the result
VEIL = 180, 90  # opacity of a refined cell and of another one, of 255


@dataclass(frozen=True)
class Level:
    """How large pictures may be: longer side of a whole one in pixels, WebP quality of whole ones and of crops.

    ``crop`` None is without loss.
    """

    side: int
    whole: int
    crop: int | None


LEVELS = (Level(1280, 88, None), Level(1024, 84, 95), Level(800, 78, 88), Level(512, 70, 80))

Box = tuple[int, int, int, int]  # left, top, right, bottom


def most_different(image: np.ndarray, other: np.ndarray, side: int = CROP) -> Box:
    """The square, not larger than the images, with the largest sum of squared luma differences."""
    height, width = image.shape[:2]
    rows, columns = min(side, height), min(side, width)
    table = np.pad(np.square(luma(image) - luma(other)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    top, left = (int(i) for i in np.unravel_index(total.argmax(), total.shape))
    return left, top, left + columns, top + rows


def veil(mask: np.ndarray, indices: np.ndarray, cell: int, size: tuple[int, int]) -> Image.Image:
    """RGBA of ``size`` (width, height): each cell in the colour of its mask value, refined ones less transparent.

    ``mask`` (Hp, Wp), ``indices`` of the refined cells in raster order, ``cell`` their side in pixels of the result.
    """
    opacity = np.full(mask.shape, VEIL[1])
    opacity.reshape(-1)[indices] = VEIL[0]
    low, high = float(mask.min()), float(np.quantile(mask, 0.95))
    colours = ramp((mask - low) / max(high - low, 1e-12))
    cells = np.dstack([np.rint(colours), opacity]).astype(np.uint8)
    pixels = cells.repeat(cell, 0)[: size[1]].repeat(cell, 1)[:, : size[0]]
    return Image.fromarray(pixels)


def reduced(image: Image.Image, side: int, smooth: bool = True) -> Image.Image:
    """The image with its longer side at ``side`` pixels, or as it is where it is smaller."""
    factor = side / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def data_uri(image: Image.Image, quality: int | None) -> str:
    """The image as a WebP inside an address; ``quality`` None is without loss."""
    stream = io.BytesIO()
    if quality is None:
        image.save(stream, "WEBP", lossless=True, method=3)
    else:
        image.save(stream, "WEBP", quality=quality, method=3)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
