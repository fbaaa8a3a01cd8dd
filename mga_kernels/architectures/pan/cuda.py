"""The Refine-Net of PAN in few launches."""

from __future__ import annotations

from ...plans.fused import Layers
from . import network as pan


def fused(refine: pan.RefineNet) -> tuple[Layers, int]:
    return refine, 1
