"""Photographs upscaled by many machines: an actor for Ray and Ray Data, and the job around it (extra ``ray``).

``Upscaler`` is what each worker holds: a model, and where results go. ``upscale`` gives images to as many workers as
there are. Ray is imported by it alone, when it is called.
"""

from .job import Workers, upscale
from .storages import Source, find, storage
from .upscaler import Upscaler

__all__ = ["Source", "Upscaler", "Workers", "find", "storage", "upscale"]
