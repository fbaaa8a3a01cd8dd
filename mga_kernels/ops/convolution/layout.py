"""Pair planes, and the arithmetic in which layers are computed in them; for the definitions of the operators.

Pair planes are bfloat16 (pairs, H + 2, pitch, 2): channels 2i and 2i + 1 of pixel (y, x) are ``planes[i, 1 + y,
16 + x]``. Rows and columns around the image, and columns up to the pitch, are zeros.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import InputError
from ..grid import describe

VECTOR = 16  # pixels
SMALLEST = torch.finfo(torch.float32).tiny  # of the numbers that are not denormal


def pitch(width: int) -> int:
    """Pixels from row to row: whole vectors, and one of zeros on each side."""
    return (math.ceil(width / VECTOR) + 2) * VECTOR


def pixels(planes: Tensor, height: int, width: int, reach: int = 0) -> Tensor:
    """View (pairs, height, width + 2 reach, 2): rows of the image with ``reach`` pixels on both sides."""
    return planes[:, 1 : 1 + height, VECTOR - reach : VECTOR + width + reach]


def channels_of(pairs: Tensor) -> Tensor:
    """(pairs, h, w, 2) -> (2 pairs, h, w)."""
    return pairs.permute(0, 3, 1, 2).flatten(0, 1)


def pairs_of(channels: Tensor) -> Tensor:
    """(2 pairs, h, w) -> (pairs, h, w, 2)."""
    return channels.unflatten(0, (-1, 2)).permute(0, 2, 3, 1)


def check_planes(op: str, name: str, planes: object) -> None:
    if not isinstance(planes, Tensor) or planes.ndim != 4 or planes.shape[3] != 2 or planes.dtype != torch.bfloat16:
        raise InputError(f"{op}: {name} must be pair planes, bfloat16 (pairs, H + 2, pitch, 2), got {describe(planes)}")


def flush(values: Tensor) -> Tensor:
    """Denormal numbers become zero, with their sign."""
    return torch.where(values.abs() < SMALLEST, torch.zeros_like(values).copysign(values), values)


def to_bfloat16(values: Tensor) -> Tensor:
    """float32 -> bfloat16, to the nearest, of two equally near to the even one; denormal numbers become zero."""
    return flush(values).bfloat16()


def multiply_add(x: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """x * factor + summand with one rounding to float32."""
    return (x.double() * factor.double() + summand.double()).float()


def leaky(values: Tensor, slope: Tensor | float) -> Tensor:
    return torch.where(values < 0, values * slope, values)


def positions(length: int, larger: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pixels of ``larger`` lie among ``length``: first and second neighbour, share of the second in float32.

    That is align_corners=False with the edge repeated.
    """
    scale = torch.tensor(length, dtype=torch.float32) / torch.tensor(larger, dtype=torch.float32)
    place = (torch.arange(larger, device=device, dtype=torch.float32) + 0.5) * scale.to(device) - 0.5
    place = place.clamp(min=0)
    first = place.long().clamp(max=length - 1)
    return first, (first + 1).clamp(max=length - 1), place - first


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """float32 (C, h, w) -> (C, height, width), bilinear: first along columns of pixels, then along rows."""
    first, second, share = positions(image.shape[1], height, image.device)
    share = share[:, None]
    tall = image[:, first] + share * (image[:, second] - image[:, first])
    first, second, share = positions(image.shape[2], width, image.device)
    left, right = tall[..., first], tall[..., second]
    return multiply_add(share, right - left, left)
