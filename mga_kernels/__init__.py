"""Mask-guided super-resolution: restore globally, refine locally (Hu et al., ECCV 2022), with kernels of its own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .engine import Explanation, MaskGuidedSR, Result

__all__ = ["Explanation", "MaskGuidedSR", "Result", "__version__"]


def __getattr__(name: str):
    """Import the engine on first use, so that ``import mga_kernels`` stays cheap."""
    if name in ("Explanation", "MaskGuidedSR", "Result"):
        return getattr(import_module(".engine", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
