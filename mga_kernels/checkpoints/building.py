"""Making the network that a file asks for, at no more cost than the file is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError, InputError

SPARE = 100  # tensors that a network may make beside its weights
WRONG = (InputError, TypeError, ValueError, RuntimeError, ZeroDivisionError, OverflowError)

Network = TypeVar("Network", bound=nn.Module)


class _Limit(TorchFunctionMode):
    """Ends what makes more tensors than this; in this thread."""

    def __init__(self, tensors: int):
        super().__init__()
        self.limit, self.left = tensors, tensors + SPARE

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.empty:
            self.left -= 1
            if self.left < 0:
                raise CheckpointError(f"it would have more tensors than the {self.limit} of the file")
        return func(*args, **(kwargs or {}))


def without_memory(make: Callable[[], Network], tensors: int) -> Network:
    """What ``make`` makes, on the meta device: sizes that a hostile file declares cost no memory.

    Nor does a number of layers cost time: CheckpointError where the network has more tensors than the ``tensors`` of
    the file, as for settings that no network can have.
    """
    try:
        with _Limit(tensors), torch.device("meta"):
            return make()
    except WRONG as error:
        raise CheckpointError(str(error).splitlines()[0]) from None
