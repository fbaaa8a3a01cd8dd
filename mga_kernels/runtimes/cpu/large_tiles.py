"""Tiles of 6 x 6 pixels instead of 4 x 4: a fifth less work for a 3x3 kernel, and four times the rounding error.

Some networks do not show that, others multiply it. So a network that asks for them is tried on a picture when its
weights are loaded, and has them where it makes the same one. That is kept for the next time. What could run in bf16 as
well has them without a trial: that rounds a hundred times as much.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from ...networks import SRNetwork
from ...networks.interface import Halves
from ...system.kept import Kept
from ...version import LIBRARY, code_version, foreign_code
from ..precision import picture
from .choose import STORAGES, slow, weights_of
from .maps import TILE, Maps
from .plan import PairWeights
from .storage import Storage

LARGE = 6
ALIKE = 90.0  # dB between two results in bytes: of 100,000 values 6 may be other by one
# Sides of the pictures it is tried on. Of the smaller one so few values are other that only what is further from ALIKE
# than UNSURE, in dB, is a verdict.
SIDES, UNSURE = (64, 128), 3.0

CODE = tuple(f"mga_kernels.{name}" for name in ("architectures", "networks", "ops", "runtimes"))

_sides = Kept("tiles.json")


def of(network: SRNetwork, kept: Storage, exact: bool) -> PairWeights | str:
    """The weights of a network that runs as it is, ``prepared``, or why there are none in this storage.

    ``exact``: though it may be fast in bf16, that is not what was asked for.
    """
    found = weights_of(network, kept)
    if isinstance(found, str):
        return found
    narrow = STORAGES["bfloat16"]
    in_bf16 = slow(narrow) or weights_of(network, narrow)
    if kept.narrow or exact or isinstance(in_bf16, str):
        return prepared(*found, kept)
    kind, halves = found
    return kind(halves, Maps(LARGE))


def prepared(kind: type[PairWeights], halves: Halves, kept: Storage) -> PairWeights:
    """The weights of a network in ``kept``, and where ``kind`` asks for it and nothing is lost, in large tiles."""
    if kept.narrow or not kind.large_tiles:
        return kind(halves, kept)
    key = _key(kind, halves, kept)
    side = _sides.find(key)
    if side in (TILE, LARGE):
        return kind(halves, kept if side == TILE else Maps(LARGE))
    made, large = kind(halves, kept), kind(halves, Maps(LARGE))
    alike = _alike(large, made)
    _sides.keep(key, LARGE if alike else TILE)  # where that cannot be written it is found out each time
    return large if alike else made


def _key(kind: type[PairWeights], halves: Halves, kept: Storage) -> dict[str, Any]:
    """All that a verdict depends on. The library, which may be large, by when it was built."""
    weights = hashlib.sha256(f"{halves.config!r} {halves.value_range}".encode())
    for name, tensor in halves.base.state_dict().items():
        weights.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        weights.update(tensor.contiguous().numpy().data)
    library = LIBRARY.stat() if LIBRARY.is_file() else None
    return {
        "code": code_version(*CODE, native=False, exact=True) + foreign_code(kind, type(halves.base)),
        "library": library and [library.st_size, library.st_mtime_ns],
        "torch": torch.__version__,
        "kernels": kept.kernels(),
        "weights": weights.hexdigest(),
    }


def _alike(large: PairWeights, made: PairWeights) -> bool:
    likeness = ALIKE
    for side in SIDES:
        image = _picture(side)
        likeness = _likeness(_result(large, image), _result(made, image))
        if abs(likeness - ALIKE) > UNSURE:
            break
    return likeness >= ALIKE


def _picture(side: int) -> torch.Tensor:
    grain = 16 * torch.randn(side, side, 1, generator=torch.Generator().manual_seed(0))
    return (255 * picture(side, side)[0].permute(1, 2, 0) + grain).round().clamp(0, 255).byte()


def _result(weights: PairWeights, image: torch.Tensor) -> np.ndarray:
    height, width, _ = image.shape
    plan = weights.plan(height, width, 0)
    out = plan.buffer()
    plan.coarse(image, out)
    return out.numpy().astype(np.float64)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
