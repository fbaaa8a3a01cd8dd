"""How a network runs on photographs, from bytes to bytes."""

from __future__ import annotations

import copy
import importlib

import torch

from ..networks import MaskGuidedNetwork
from . import pairs
from .budget import Budget
from .modules import ModulePlanner
from .plan import Plan, Planner

__all__ = ["Budget", "Plan", "Planner", "prepare"]

# Network -> (module, class of its weights): networks with convolutions of our own.
PLANNED = {"rfdn": ("rfdn", "RfdnWeights")}


def prepare(
    network: MaskGuidedNetwork, device: torch.device, dtype: torch.dtype | None
) -> tuple[Planner, dict[str, str]]:
    """The fastest way to run the network here, and the reasons against others that might be faster, by name.

    ``dtype`` None: what is fastest without a loss that can be seen. ``network`` is moved and converted as it will run;
    our own convolutions take a copy of its weights in float32.
    """
    reason = _against_pairs(network, device, dtype)
    if reason is None:
        module, name = PLANNED[network.config.network]
        weights = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return weights(copy.deepcopy(network).float()), {}
    network = network.to(device, dtype or torch.float32)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ModulePlanner(network), {"convolutions of our own": reason}


def _against_pairs(network: MaskGuidedNetwork, device: torch.device, dtype: torch.dtype | None) -> str | None:
    if device.type != "cpu":
        return f"there are none for {device}"
    if dtype not in (None, torch.bfloat16):
        return f"dtype {str(dtype).removeprefix('torch.')} was asked for"
    if network.config.network not in PLANNED:
        return f"there are none for {network.config.network} yet"
    return pairs.supported()
