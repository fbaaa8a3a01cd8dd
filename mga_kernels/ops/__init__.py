"""The operators of the mask-guided path. Each is one folder; the functions below are their contracts."""

from __future__ import annotations

from .dynamic_filter import dynamic_filter
from .gather_patches import gather_patches
from .mask_head import mask_head
from .paste_patches import paste_patches_
from .registry import PREFERENCE, last_backend, operators
from .select_patches import select_patches

__all__ = [
    "PREFERENCE",
    "dynamic_filter",
    "gather_patches",
    "last_backend",
    "mask_head",
    "operators",
    "paste_patches_",
    "select_patches",
]
