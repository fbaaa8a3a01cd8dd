"""Reading published PyTorch checkpoints without executing them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

WRAPPERS = ("params_ema", "params", "state_dict", "model", "net")


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors by name of a .pth or .pt file, on the CPU, with the usual wrappers and ``module.`` stripped.

    Only tensors are unpickled (``weights_only=True``); a file that asks for anything else is refused.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: there is no file {os.fspath(path)}") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"checkpoint: {os.fspath(path)} is no plain dictionary of tensors, or would run code when loaded; refused"
        ) from None
    except Exception as error:  # a damaged file can end the unpickler in any way
        detail = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"checkpoint: {os.fspath(path)} cannot be read: {detail}") from None
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"checkpoint: {os.fspath(path)} holds no dictionary of tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
