"""The engine: what it is asked, what it decides, and what it returns."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .explanation import Explanation
    from .frames import Frames, Reused
    from .model import MaskGuidedSR
    from .result import Result
    from .settings import Settings

__all__ = ["Explanation", "Frames", "MaskGuidedSR", "Result", "Reused", "Settings"]

_FILES = {"Explanation": "explanation", "Frames": "frames", "Reused": "frames", "MaskGuidedSR": "model"}
_FILES |= {"Result": "result", "Settings": "settings"}


def __getattr__(name: str):
    """Imported at the first use: most of it brings PyTorch, and ``overlap``, ``enlarging`` and ``quick`` do not."""
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
