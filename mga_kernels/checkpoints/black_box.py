"""Files of networks of which the larger one is run by another library (``networks.black_box``).

In our format (``native``), with "form" = "black-box": the tensors of the Base-Net begin with "base.", those behind
"refine." are the state dict as the published file had it, by which spandrel tells what it is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..networks import BlackBoxConfig, BlackBoxNetwork, WholeNetwork
from ..system.texts import shown
from .native import filled, open_file, write_model
from .published import widened

BASE, REFINE = "base.", "refine."


def by_spandrel(state: Mapping[str, Tensor], name: str) -> WholeNetwork:
    """What spandrel loads these tensors as; CheckpointError where it does not, or is not installed."""
    try:
        from .spandrel import from_state
    except ImportError as problem:
        raise CheckpointError(f"{name} is run by spandrel: {problem}") from None
    return from_state(dict(state), name)


def join(base: WholeNetwork, refine: WholeNetwork, config: BlackBoxConfig) -> BlackBoxNetwork:
    """The two in one, whose modules they become."""
    config = dataclasses.replace(config, base=base.config, refine=refine.config)
    with torch.device("meta"):  # what is made here is replaced
        network = BlackBoxNetwork(config)
    network.base, network.refine = base, refine
    return network.eval().requires_grad_(False)


def save_black_box(
    path: str | os.PathLike,
    network: BlackBoxNetwork,
    original: Mapping[str, Tensor],
    licence: dict[str, str],
    training: Mapping[str, object],
) -> None:
    """Write a model file, whole or not at all. ``original``: the tensors of which spandrel made the Refine-Net."""
    tensors = {BASE + name: tensor.detach().float().cpu() for name, tensor in network.base.state_dict().items()}
    tensors |= {REFINE + name: tensor.detach().cpu() for name, tensor in original.items()}
    contiguous = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_model(path, network.config, contiguous, licence, training)


def load_black_box(path: Path, config: BlackBoxConfig) -> BlackBoxNetwork:
    """The network in evaluation mode, fp32, on the CPU; CheckpointError where file and network do not fit."""
    base = filled(path, config.base, lambda: WholeNetwork(config.base), BASE)
    name = f"model: {path}"
    with open_file(path) as file:
        refining = [key for key in file.keys() if key.startswith(REFINE)]
        state = {key.removeprefix(REFINE): widened(file.get_tensor(key), f"{name}: {key}") for key in refining}
        others = [key for key in file.keys() if not key.startswith((BASE, REFINE))]
    if others:
        raise CheckpointError(
            f"{name} does not fit {config.network}: tensor {shown(others[0])} belongs to neither network"
        )
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{name} is damaged: tensor {shown(REFINE + key)} holds NaN or infinity")
    refine = by_spandrel(state, name)
    found = (refine.config.network, refine.config.scale, refine.config.definition.minimum_size)
    wanted = (config.network, config.scale, config.smallest)
    if found != wanted:
        what = "{} x{} of {} pixels or more"
        raise CheckpointError(f"{name} says {what.format(*wanted)}, and its tensors are {what.format(*found)}")
    weights = sum(parameter.numel() for parameter in refine.parameters())
    if weights != config.weights:
        raise CheckpointError(
            f"{name} says {config.weights:,} parameters of {config.network}, and its tensors have {weights:,}"
        )
    return join(base, refine, config)
