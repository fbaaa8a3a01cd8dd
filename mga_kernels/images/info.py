"""What Pillow keeps beside an image and takes when one is saved: dictionaries whose values are of many types."""

from typing import Any

Info = dict[str, Any]  # metadata, by the names of ``PIL.Image.info``
Options = dict[str, Any]  # of an encoder, by the names of ``PIL.Image.Image.save``
