"""How a network runs on photographs, from bytes to bytes, where that is faster than its modules one after another."""

from __future__ import annotations

import importlib

from ..networks import MaskGuidedNetwork
from . import pairs

# Network -> (module, class of its weights). A class has plan(height, width, k) and bytes_needed(height, width, k).
PLANNED = {"rfdn": ("rfdn", "RfdnWeights")}


def prepare(network: MaskGuidedNetwork):
    """The network's weights prepared for plans on this CPU, or the reason (str) why there is no plan for it here."""
    if network.config.network not in PLANNED:
        return f"there is no plan for {network.config.network} yet"
    reason = pairs.supported()
    if reason is not None:
        return reason
    module, name = PLANNED[network.config.network]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(network)
