"""Colour spaces and ranges of published networks: what they are given, and how their result becomes RGB.

YCbCr is that of BT.601 with all values from 0 to 1 ("full range", as in JPEG); luma of the studio range is 16/255 for
black and 235/255 for white. "clipped" is YCbCr of the full range whose values are limited to those of the studio range,
as the code does with which one network was published: darker and brighter parts of a photograph are lost.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COLOURS = ("rgb", "ycbcr", "y")
INPUT_RANGES = ("0..1", "0..255", "16..235", "clipped")
ONLY = {"16..235": "y", "clipped": "ycbcr"}  # ranges of one colour space, both divided by 255
RED, BLUE = 0.299, 0.114  # their shares of luma


def rgb_to_ycbcr(image: Tensor) -> Tensor:
    """(N, 3, H, W), both in 0..1."""
    red, green, blue = image.split(1, dim=1)
    luma = RED * red + (1 - RED - BLUE) * green + BLUE * blue
    return torch.cat([luma, 0.5 * (blue - luma) / (1 - BLUE) + 0.5, 0.5 * (red - luma) / (1 - RED) + 0.5], dim=1)


def ycbcr_to_rgb(image: Tensor) -> Tensor:
    """Inverse of ``rgb_to_ycbcr``; colours that RGB does not have leave 0..1."""
    luma, blue, red = image.split(1, dim=1)
    red = luma + (red - 0.5) * 2 * (1 - RED)
    blue = luma + (blue - 0.5) * 2 * (1 - BLUE)
    return torch.cat([red, (luma - RED * red - BLUE * blue) / (1 - RED - BLUE), blue], dim=1)


def encode(image: Tensor, colour: str, input_range: str) -> Tensor:
    """RGB (N, 3, H, W) in 0..1 as a network of this convention takes it: (N, 3 or, of "y", 1, H, W)."""
    if colour != "rgb":
        image = rgb_to_ycbcr(image)
    if colour == "y":
        image = image[:, :1]
    if input_range == "16..235":
        return (16 + 219 * image) / 255
    if input_range == "clipped":
        luma, planes = image.split((1, 2), dim=1)
        return torch.cat([luma.clamp(16 / 255, 235 / 255), planes.clamp(16 / 255, 240 / 255)], dim=1)
    return image * 255 if input_range == "0..255" else image


def decode(result: Tensor, colour: str, input_range: str, image: Tensor, scale: int) -> Tensor:
    """What a network made of ``image`` (N, 3, H, W) as RGB (N, 3, sH, sW) in 0..1, not clamped.

    The two colour planes that a network of luma does not see are enlarged by bicubic interpolation.
    """
    if input_range == "16..235":
        result = (255 * result - 16) / 219
    elif input_range == "0..255":
        result = result / 255
    if colour == "y":
        planes = rgb_to_ycbcr(image)[:, 1:]
        # With antialias, which has nothing to do here, the cubic is that of the field's bicubic, a = -0.5.
        result = torch.cat([result, F.interpolate(planes, scale_factor=scale, mode="bicubic", antialias=True)], dim=1)
    return result if colour == "rgb" else ycbcr_to_rgb(result)
