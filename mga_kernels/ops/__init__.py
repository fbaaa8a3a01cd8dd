"""The operators. Each is one folder, those of the CPU convolutions share one; the functions are their contracts."""

from __future__ import annotations

from .convolution.chain import pair_chain_
from .convolution.map_patches import map_gather_, map_grid_scale_, map_grid_statistics
from .convolution.map_weight import pack_map_weight, plain_map_weight
from .convolution.maps import convolve_maps_
from .convolution.patches import pair_gather_, pair_grid_scale_, pair_grid_statistics
from .convolution.resample import map_interpolate_, pair_interpolate_, pair_pool
from .convolution.weight import pack_pair_weight
from .convolve_pixels import convolve_pixels_
from .dynamic_filter import dynamic_filter
from .filter_and_select import filter_and_select
from .gather_patches import gather_patches
from .high_pass import high_pass
from .image_to_input import image_to_input
from .mask_head import mask_head
from .output_to_image import output_to_image
from .paste_patches import paste_patches_
from .registry import BACKENDS, last_backend, operators
from .select_patches import select_patches

__all__ = [
    "BACKENDS",
    "convolve_maps_",
    "convolve_pixels_",
    "dynamic_filter",
    "filter_and_select",
    "gather_patches",
    "high_pass",
    "image_to_input",
    "last_backend",
    "map_gather_",
    "map_grid_scale_",
    "map_grid_statistics",
    "map_interpolate_",
    "mask_head",
    "operators",
    "output_to_image",
    "pack_map_weight",
    "pack_pair_weight",
    "pair_chain_",
    "pair_gather_",
    "pair_grid_scale_",
    "pair_grid_statistics",
    "pair_interpolate_",
    "pair_pool",
    "paste_patches_",
    "plain_map_weight",
    "select_patches",
]
