"""Tiles of 6 x 6 pixels instead of 4 x 4: a fifth less work for a 3x3 kernel, and four times the rounding error. With
the same error 5x5 kernels are in tiles of 4 x 4 pixels or, where 3x3 kernels have small ones, in none.

Some networks do not show that, others multiply it. So each is tried on a picture when its weights are loaded, and has
them in as many layers as make the same one, coarse and refined; a Refine-Net alone may have small ones. That is kept
for the next time. What could run in bf16 as well has them without a trial: that rounds a hundred times as much.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from ...networks import SRNetwork
from ...networks.interface import Halves
from ...system.kept import Kept
from ...version import LIBRARY, code_version, foreign_code
from ..precision import picture
from .choose import STORAGES, slow, weights_of
from .maps import Maps
from .plan import PairWeights
from .storage import Storage

# Shares of the layers of a whole network that have large tiles, the last ones, and of those of a Base-Net and a
# Refine-Net; the fastest ones first. Errors of early layers grow in those that follow.
WHOLE = tuple((eighths / 8,) for eighths in range(8, 1, -1))
GUIDED = (1.0, 1.0), (1.0, 0.0), (0.5, 0.0)
ALIKE = 90.0  # dB between two results in bytes: of 100,000 values 6 may be other by one
SIDE = 96  # of the picture it is tried on
HOPELESS = 0.5  # dB by which what is expected of a share must fail for it not to be tried
MANY = 32 << 20  # bytes of weights from which on they are not kept as tiles need them, in eight times the memory
ERROR = 0.25  # of tiles of 4, a part of that of tiles of 6

Shares = tuple[float, ...]
Firsts = list[int | None]  # numbers of the first layers with large tiles, as of ``Maps``

CODE = tuple(f"mga_kernels.{name}" for name in ("architectures", "networks", "ops", "runtimes"))

_firsts = Kept("tiles.json")


def of(network: SRNetwork, kept: Storage, exact: bool) -> PairWeights | str:
    """The weights of a network that runs as it is, ``prepared``, or why there are none in this storage.

    ``exact``: though it may be fast in bf16, that is not what was asked for.
    """
    found = weights_of(network, kept)
    if isinstance(found, str):
        return found
    (kind, halves), narrow = found, STORAGES["bfloat16"]
    if kept.narrow or exact or slow(narrow) or kind.against(halves, narrow):
        return prepared(kind, halves, kept)
    return _made(kind, halves, [0])


def prepared(kind: type[PairWeights], halves: Halves, kept: Storage) -> PairWeights:
    """The weights of a network in ``kept``, and where nothing is lost, in large tiles."""
    if kept.narrow:
        return kind(halves, kept)
    key = _key(kind, halves, kept)
    found = _firsts.find(key)
    if _is_verdict(found, halves):
        return _made(kind, halves, cast(Firsts, found))
    firsts, made = _most(kind, halves)
    _firsts.keep(key, firsts)  # where that cannot be written it is found out each time
    return made


def _most(kind: type[PairWeights], halves: Halves) -> tuple[Firsts, PairWeights]:
    """Where large tiles begin, as early as pictures are alike those without any, and the weights.

    Packed weights may take several times the memory of the network, so there is one set of them at a time.
    """
    choices: Sequence[Shares] = WHOLE if halves.refine is None else GUIDED
    none: Firsts = [None] * len(choices[0])
    made, image = _made(kind, halves, none), _picture()
    pictures, tiled = _pictures(made, image), cast(Maps, made.storage).tiled
    last, least = choices[0], 0.0
    for shares in choices:
        # What is expected of fewer large tiles of the Base-Net than were tried last.
        if shares[1:] == last[1:] and least + _gain(shares[0]) - _gain(last[0]) < -HOPELESS:
            continue
        firsts = [round(tiled * (1 - share)) if share else None for share in shares]
        del made
        gc.collect()  # weights may refer to themselves
        made = _made(kind, halves, firsts)
        last, least = shares, _likeness(_pictures(made, image), pictures) - ALIKE
        if least >= 0:
            return firsts, made
    del made
    gc.collect()
    return none, _made(kind, halves, none)


def _made(kind: type[PairWeights], halves: Halves, firsts: Firsts) -> PairWeights:
    """``firsts``: of the Base-Net, and of the Refine-Net where that has another."""
    weights = (one for half in (halves.base, halves.refine) if half is not None for one in half.parameters())
    transformed = not kind.short_chains or sum(one.nbytes for one in weights) < MANY
    base, *refine = (Maps(first, transformed) for first in firsts)
    return kind(halves, base, refine[0] if refine else None)


def _is_verdict(found: object, halves: Halves) -> bool:
    if not isinstance(found, list) or len(found) != (1 if halves.refine is None else 2):
        return False
    return all(one is None or (type(one) is int and one >= 0) for one in found)


def _gain(share: float) -> float:
    """dB by which pictures are nearer with large tiles in a share of the layers: errors add up as variances."""
    return -5 * math.log10(share + (1 - share) * ERROR**2)


def _key(kind: type[PairWeights], halves: Halves, kept: Storage) -> dict[str, Any]:
    """All that a verdict depends on. The library, which may be large, by when it was built."""
    weights = hashlib.sha256(f"{halves.config!r} {halves.value_range}".encode())
    for half in (halves.base, halves.refine):
        for name, tensor in ({} if half is None else half.state_dict()).items():
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


def _picture() -> torch.Tensor:
    grain = 16 * torch.randn(SIDE, SIDE, 1, generator=torch.Generator().manual_seed(0))
    return (picture(SIDE, SIDE)[0].permute(1, 2, 0) + grain / 255).clamp(0, 1).contiguous()


def _pictures(weights: PairWeights, image: torch.Tensor) -> list[np.ndarray]:
    """The coarse picture in 0..1, and those of all its cells where there is a Refine-Net."""
    weights = copy.copy(weights)
    weights.pixel = torch.float32
    height, width, _ = image.shape
    guided = len(weights.chains) > weights.of_image
    cells = math.prod(-(-side // weights.config.patch_size) for side in (height, width)) if guided else 0
    plan = weights.plan(height, width, cells)
    coarse, scale = plan.buffer(), weights.config.scale
    plan.coarse(image, coarse)
    pictures = [coarse[: scale * height, : scale * width]]
    if guided:
        plan.gather(torch.arange(cells, dtype=torch.int32)[None])
        pictures.append(plan.refined())
    return [made.numpy().astype(np.float64) for made in pictures]


def _likeness(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """dB to be expected of bytes, of which one is other where a level lies between two values: as often as they are
    apart, in levels. Of coarse and refined pictures the mean of both, as where half of the cells are refined."""
    apart = np.mean([255 * np.abs(one - other).mean() for one, other in zip(some, others, strict=True)])
    return float("inf") if apart == 0 else float(10 * np.log10(255**2 / apart))
