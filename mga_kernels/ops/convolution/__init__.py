"""The convolutions of the CPU runtime, in pair planes (``layout``) or float maps (``alone.layout``).

Each function is the contract of an operator.

The kernels are in csrc/convolution and csrc/maps; the definitions here say in PyTorch what they compute.
"""

from __future__ import annotations

from .chain import pair_chain_
from .map_patches import map_gather_, map_grid_scale_, map_grid_statistics
from .map_weight import pack_map_weight, plain_map_weight
from .maps import convolve_maps_
from .patches import pair_gather_, pair_grid_scale_, pair_grid_statistics
from .resample import map_interpolate_, pair_interpolate_, pair_pool
from .weight import pack_pair_weight

__all__ = [
    "convolve_maps_",
    "map_gather_",
    "map_grid_scale_",
    "map_grid_statistics",
    "map_interpolate_",
    "pack_map_weight",
    "pack_pair_weight",
    "pair_chain_",
    "pair_gather_",
    "pair_grid_scale_",
    "pair_grid_statistics",
    "pair_interpolate_",
    "pair_pool",
    "plain_map_weight",
]
