"""Tiles of 6 x 6 pixels instead of 4 x 4: a fifth less work for a 3x3 kernel, and four times the rounding error.

Some networks do not show that, others multiply it. So a network that asks for them is tried on a picture when its
weights are loaded, and has them where it makes the same one.
"""

from __future__ import annotations

import numpy as np
import torch

from ...networks.interface import Halves
from ..precision import picture
from .maps import Maps
from .plan import PairWeights
from .storage import Storage

LARGE = 6
SIDE = 64  # of the picture it is tried on
ALIKE = 90.0  # dB between two results in bytes: of 100,000 values 6 may be other by one


def prepared(kind: type[PairWeights], halves: Halves, kept: Storage) -> PairWeights:
    """The weights of a network in ``kept``, and where ``kind`` asks for it and nothing is lost, in large tiles."""
    made = kind(halves, kept)
    if kept.narrow or not kind.large_tiles:
        return made
    large = kind(halves, Maps(LARGE))
    grain = 16 * torch.randn(SIDE, SIDE, 1, generator=torch.Generator().manual_seed(0))
    image = (255 * picture(SIDE, SIDE)[0].permute(1, 2, 0) + grain).round().clamp(0, 255).byte()
    return large if _likeness(_result(large, image), _result(made, image)) >= ALIKE else made


def _result(weights: PairWeights, image: torch.Tensor) -> np.ndarray:
    plan = weights.plan(SIDE, SIDE, 0)
    out = plan.buffer()
    plan.coarse(image, out)
    return out.numpy().astype(np.float64)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
