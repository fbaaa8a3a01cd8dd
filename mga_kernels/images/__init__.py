"""Photographs in and out: pixels, transparency and metadata, with nothing dropped in silence."""

from .film import Film, check_holds, read_film, read_picture
from .opening import suffixes
from .photo import Photo, check_pillow_holds, to_array, to_image
from .reading import read_image, read_stream
from .writing import (
    FORMATS,
    KEPT,
    LOSSY,
    AtMost,
    Quality,
    check_format,
    check_output,
    encode_film,
    encode_image,
    result_suffix,
    save_film,
    save_image,
)

__all__ = [
    "FORMATS",
    "KEPT",
    "LOSSY",
    "AtMost",
    "Film",
    "Photo",
    "Quality",
    "check_format",
    "check_holds",
    "check_output",
    "check_pillow_holds",
    "encode_film",
    "encode_image",
    "read_film",
    "read_image",
    "read_picture",
    "read_stream",
    "result_suffix",
    "save_film",
    "save_image",
    "suffixes",
    "to_array",
    "to_image",
]
