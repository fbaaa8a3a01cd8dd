"""The Refine-Net of PAN in few launches."""

from __future__ import annotations

from ...runtimes.cuda.fused import Layers
from . import network as pan


def fused(refine: pan.RefineNet) -> tuple[Layers, int]:
    return refine, 1
