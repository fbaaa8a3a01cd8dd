"""Which storage convolutions of our own have on this processor: pair planes where it has bf16, float maps elsewhere."""

from __future__ import annotations

import os

from ... import _native
from .chains import Pairs
from .maps import Maps
from .pairs import forced_backend
from .storage import Storage

STORAGES: dict[str, Storage] = {kept.name: kept for kept in (Pairs(), Maps())}


def supported() -> str | None:
    """Why convolutions of our own cannot run here, or None: with the library they run everywhere."""
    return _native.LIBRARY_ERROR


def storage() -> Storage:
    """bfloat16 where its kernels are fast, float32 elsewhere; BackendError for an MGA_CPU_ISA that cannot be met."""
    return STORAGES["bfloat16" if _native.convolution_kernels()[1] else "float32"]


def slow() -> str | None:
    """Why convolutions of our own should only run here where they are asked for, or None."""
    forced = forced_backend()
    if forced:
        return f'MGA_BACKEND is {forced}, and no kernels but those of "cpu" are fast; runtime="own" asks for it'
    of_maps, maps_are_fast = _native.map_kernels()
    if maps_are_fast or _native.convolution_kernels()[1]:
        return None
    held = os.environ.get("MGA_CPU_ISA")
    reason = f"MGA_CPU_ISA is {_native.instruction_set()}" if held else "this processor has neither AVX2 nor NEON"
    return f'{reason}, and the {of_maps} kernels of the convolutions are slow; runtime="own" runs them all the same'
