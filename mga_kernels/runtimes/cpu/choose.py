"""In which storage a network runs: of those that it has a plan in, the one that is fastest on this processor.

Pair planes have half the bytes, and need a processor that multiplies in bf16; float maps are fast nearly everywhere and
exact, and a 3x3 kernel takes a quarter of the products there. Which of them is faster depends on the network, so its
class says so (``faster``), where `python bench/storages.py` has measured it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from ... import _native
from ...networks import SRNetwork
from ...networks.interface import Halves
from .chains import Pairs
from .maps import Maps
from .pairs import forced_backend
from .storage import Storage

if TYPE_CHECKING:
    from .plan import PairWeights

STORAGES: dict[str, Storage] = {kept.name: kept for kept in (Maps(), Pairs())}
KERNELS = {
    "float32": (_native.map_kernels, "neither AVX2 nor NEON"),
    "bfloat16": (_native.convolution_kernels, "no AVX-512 with bf16"),
}  # of a storage, and what a processor has on which they are slow

Made = TypeVar("Made")


def supported() -> str | None:
    """Why convolutions of our own cannot run here, or None: with the library they run everywhere."""
    return _native.LIBRARY_ERROR


def slow(kept: Storage) -> str | None:
    """Why convolutions of our own should only run in this storage where they are asked for, or None.

    BackendError for an MGA_CPU_ISA that cannot be met.
    """
    forced = forced_backend()
    if forced:
        return f'MGA_BACKEND is {forced}, and no kernels but those of "cpu" are fast; runtime="own" asks for it'
    kernels, lacking = KERNELS[kept.name]
    name, fast = kernels()
    if fast:
        return None
    held = os.environ.get("MGA_CPU_ISA")
    reason = f"MGA_CPU_ISA is {_native.instruction_set()}" if held else f"this processor has {lacking}"
    slowly = f"the {name} kernels of the convolutions in {kept.name} are slow"
    return f'{reason}, and {slowly}; runtime="own" runs them all the same'


def described(kept: Storage) -> str:
    """Arithmetic and what does it, for people."""
    return f"{kept.description} ({kept.kernels()} kernels{'' if slow(kept) is None else ', slow'})"


def fastest(
    make: Callable[[Storage], Made | str],
    against: Callable[[Storage], str | None],
    faster: str,
    dtype: torch.dtype | None = None,
    asked: bool = False,
) -> Made | str:
    """What ``make`` makes of a network in the storage that is fastest for it here, or why there is none.

    ``make`` returns a reason where the network has no plan in a storage; ``against`` says it without making one, so
    that a storage that is slow is not said to run what it cannot. ``faster``: the name of the one to begin with where
    several are fast. ``dtype``: of what is stored, None for any. ``asked``: also where it would be slow, which float
    maps are less.
    """
    name = str(dtype).removeprefix("torch.")
    left = [(kept, slow(kept)) for kept in STORAGES.values() if dtype is None or kept.name == name]
    left.sort(key=lambda one: (one[1] is not None, one[1] is None and one[0].name != faster))
    reasons = [] if left else [f"dtype {name} was asked for"]
    for kept, reason in left:
        made = make(kept) if asked or reason is None else against(kept) or reason
        if not isinstance(made, str):
            return made
        reasons.append(made)
    return reasons[0]


def against(network: SRNetwork, kept: Storage) -> str | None:
    """Why a network that runs as it is has no weights in this storage, or None; nothing is made."""
    found = weights_of(network, kept)
    return found if isinstance(found, str) else None


def weights_of(network: SRNetwork, kept: Storage) -> tuple[type[PairWeights], Halves] | str:
    """The class of a network's weights, and the halves that it takes in this storage, or why there are none."""
    kind = None if network.staged is None else network.staged.part("cpu")
    if kind is None:
        return f"there are no convolutions of our own for {network.config.network} yet"
    halves = network.halves()
    if isinstance(halves, str):
        return halves
    return kind.against(halves, kept) or (kind, halves)
