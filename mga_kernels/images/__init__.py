"""Photographs in and out: pixels, transparency and metadata, with nothing dropped in silence."""

from .opening import suffixes
from .photo import Photo, check_pillow_holds, to_array, to_image
from .reading import read_image, read_stream
from .writing import FORMATS, LOSSY, check_format, check_output, encode_image, save_image

__all__ = [
    "FORMATS",
    "LOSSY",
    "Photo",
    "check_format",
    "check_output",
    "check_pillow_holds",
    "encode_image",
    "read_image",
    "read_stream",
    "save_image",
    "suffixes",
    "to_array",
    "to_image",
]
