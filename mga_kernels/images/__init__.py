"""Photographs in and out: pixels, transparency and metadata, with nothing dropped in silence."""

from .opening import suffixes
from .photo import Photo, to_array, to_image
from .reading import read_image
from .writing import FORMATS, check_output, save_image

__all__ = ["FORMATS", "Photo", "check_output", "read_image", "save_image", "suffixes", "to_array", "to_image"]
