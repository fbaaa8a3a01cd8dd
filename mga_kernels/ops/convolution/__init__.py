"""The convolutions of the CPU runtime, in pair planes (``layout``). Each function is the contract of an operator.

The kernels are in csrc/convolution; the definitions here say in PyTorch what they compute.
"""

from __future__ import annotations

from .chain import pair_chain_
from .patches import pair_gather_, pair_grid_scale_, pair_grid_statistics
from .resample import pair_interpolate_, pair_pool
from .weight import pack_pair_weight

__all__ = [
    "pack_pair_weight",
    "pair_chain_",
    "pair_gather_",
    "pair_grid_scale_",
    "pair_grid_statistics",
    "pair_interpolate_",
    "pair_pool",
]
