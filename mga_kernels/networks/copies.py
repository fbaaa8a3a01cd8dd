"""Copies of networks that share nothing with what they are copies of."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from .registry import network_names

Module = TypeVar("Module", bound=nn.Module)


def private_copy(network: Module) -> Module:
    """A copy of a network, whatever it is used for elsewhere: parameters, buffers and settings of its own.

    Tensors that modules keep beside their parameters and that a computation made (the older weight normalisation keeps
    the weight so) are copied without the computation, which ``copy.deepcopy`` refuses.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def to_bytes(network: nn.Module) -> bytes:
    """A network for another process. Not its tensors, whose memory multiprocessing would share.

    InputError for a network that holds what cannot be pickled.
    """
    stream = io.BytesIO()
    try:
        torch.save(network, stream)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise InputError(
            f"pickle: this network holds what cannot be pickled ({error}); load its file in the other process instead"
        ) from error
    return stream.getvalue()


def from_bytes(content: bytes) -> nn.Module:
    """The network on the CPU. It runs code as unpickling does, of which this is a part."""
    network_names()  # a network of the user's own is found where MGA_NETWORKS says
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
