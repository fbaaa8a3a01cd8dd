"""Trying a network on a picture, for what the names and shapes of its tensors do not tell.

An SR network enlarges a soft picture much as bicubic interpolation does. At another scale than its own, or given values
of another range, it does not: of the published networks that were tried, the right way differs from bicubic by 0.3 to
1.3 levels of 255 (root mean square), each wrong one by 4 or more and by at least ten times as much as the right one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.whole import WholeNetwork

SIDE, BORDER = 48, 16  # of the picture, and HR pixels that are not compared
NEAR = 3.0  # levels by which the right way differs at most
CLEAR = 3.0  # times as much as any wrong way must differ
KEPT = 12.0  # levels by which the right constants shift a colour at most
STUDIO_BLACK = 16 / 255
DRIFT = 0.75  # levels; the published networks of studio luma have 1.0 and 2.7, those of the full range 0.05 and 0.6

Way = tuple[int, str]  # scale and input range


@torch.inference_mode()
def right_way(networks: Iterable[WholeNetwork], ranges: Iterable[str]) -> tuple[Way | None, dict[Way, float]]:
    """The scale and the input range in which one of these networks, a network at several scales, works.

    None where none of them works, or several; and by how many levels each of them differs from bicubic.
    """
    ranges = tuple(ranges)
    found = {
        (network.config.scale, input_range): _difference(network, input_range)
        for network in networks
        for input_range in ranges
    }
    best = min(found, key=lambda way: found[way])
    others = [levels for way, levels in found.items() if way != best]
    clear = found[best] <= NEAR and all(levels >= CLEAR * found[best] for levels in others)
    return best if clear else None, found


@torch.inference_mode()
def right_reading(networks: Iterable[WholeNetwork]) -> int:
    """Which of these networks, made of the same tensors, works: the first, unless it clearly does not and another does.

    Those of the others that work may be nearly the same.
    """
    found: list[float] = []
    for network in networks:
        side = SIDE // 2 if network.config.scale >= 4 else SIDE  # some of these networks are large
        found.append(_difference(network, network.config.input_range, side))
        if found[0] <= NEAR:
            return 0
    best = min(range(len(found)), key=found.__getitem__)
    return best if found[best] <= NEAR and found[0] >= CLEAR * found[best] else 0


@torch.inference_mode()
def right_colours(networks: Sequence[WholeNetwork]) -> tuple[int | None, list[float]]:
    """Which of these networks, which differ in constants alone, keeps the colours of the picture.

    By how many levels each of them shifts its mean colour is returned, too: that is what wrong constants do, while
    detail may be invented by a GAN. GANs shift colours themselves, by up to 8 levels among those that were tried, so
    the first of those that are not clearly worse than the best is taken; None where even the best shifts them too far.
    """
    shifts = [_shift(network) for network in networks]
    limit = CLEAR * min(shifts)
    found = next(index for index, levels in enumerate(shifts) if levels <= limit)
    return found if min(shifts) <= KEPT else None, shifts


def _shift(network: WholeNetwork) -> float:
    image = picture()
    result, inner = network(image), slice(BORDER, -BORDER)
    expected = F.interpolate(image, scale_factor=network.config.scale, mode="bicubic", align_corners=False)
    levels = 255 * float((result - expected)[..., inner, inner].mean((0, 2, 3)).square().mean().sqrt())
    return levels if math.isfinite(levels) else math.inf


@torch.inference_mode()
def is_studio_luma(network: WholeNetwork) -> bool:
    """Whether a network of luma was trained on the studio range: it has not learned what is darker than 16/255.

    There its error on even grey changes from what it is at 16/255. False proves nothing: some extrapolate well.
    """
    scale = network.config.scale
    errors = []
    for grey in (0.0, STUDIO_BLACK):
        result, _ = network.body(torch.full((1, 1, SIDE // 2, SIDE // 2), grey, dtype=torch.float32))
        inner = result[..., SIDE // 4 : -(SIDE // 4), SIDE // 4 : -(SIDE // 4)] if scale > 1 else result
        errors.append(float(inner.mean()) - grey)
    return abs(errors[0] - errors[1]) * 255 >= DRIFT


def _difference(network: WholeNetwork, input_range: str, side: int = SIDE) -> float:
    image = picture()[..., :side, :side]
    config = network.config
    network.config = dataclasses.replace(config, input_range=input_range)
    try:
        result = network(image)
    finally:
        network.config = config
    expected = F.interpolate(image, scale_factor=config.scale, mode="bicubic", align_corners=False)
    inner = slice(BORDER, -BORDER)
    levels = 255 * float((result - expected)[..., inner, inner].square().mean().sqrt())
    return levels if math.isfinite(levels) else math.inf


def picture() -> Tensor:
    """Slopes and waves in colour, softer than photographs: float32 (1, 3, SIDE, SIDE) in [0, 1]."""
    side = torch.arange(SIDE, dtype=torch.float32) / SIDE
    y, x = torch.meshgrid(side, side, indexing="ij")
    slopes = torch.stack([y, x, 1 - (x + y) / 2])
    return (0.4 + 0.2 * slopes + 0.2 * torch.sin(4 * math.pi * x * y))[None]
