"""Finds on a CPU what a CUDA graph cannot capture: values read back to the host, sizes that depend on them, copies."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"}
SIZES = {"nonzero", "nonzero_static", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive"}
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}
FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy", "lift"}  # torch.tensor(list): pageable memory, which would be copied


class NotCapturable(RuntimeError):
    """The operator, and why a graph would not have it."""


class CaptureGuard(TorchDispatchMode):
    """Within it every operator is looked at before it runs; ``seen`` has the names of all."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[-1]
        given = tree_leaves((args, kwargs or {}))
        self.seen.add(name)
        masks = any(isinstance(value, torch.Tensor) and value.dtype == torch.bool for value in tree_leaves(args[1:2]))
        if name in READS:
            raise NotCapturable(f"{func} waits for a value")
        if name in SIZES or (name in BY_MASK and masks):
            raise NotCapturable(f"{func} gives a tensor whose size depends on values")
        if name in FROM_THE_HOST:
            raise NotCapturable(f"{func} copies numbers of the host")
        result = func(*args, **(kwargs or {}))
        devices = {value.device.type for value in (*given, *tree_leaves(result)) if isinstance(value, torch.Tensor)}
        if len(devices) > 1:
            raise NotCapturable(f"{func} has tensors on {' and '.join(sorted(devices))}")
        return result
