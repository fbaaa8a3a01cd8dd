"""Formats that Pillow reads and writes by plug-ins of others (extra ``formats``): HEIF, also called HEIC, and JPEG XL.

A plug-in is imported, which registers it with Pillow for the whole process, once there is a file of its kind.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from ..errors import ImageError

SUFFIXES = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL"}
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AV1 = frozenset({b"avif", b"avis"})
_CONTAINERS = frozenset({b"mif1", b"msf1"})  # of pictures by any codec
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


@dataclass(frozen=True)
class Plugin:
    """``title``: what people call the format; ``module`` and ``package`` of the plug-in."""

    title: str
    module: str
    package: str


PLUGINS = {
    "HEIF": Plugin("HEIF (HEIC)", "pillow_heif", "pillow-heif"),
    "JXL": Plugin("JPEG XL", "pillow_jxl", "pillow-jxl-plugin"),
}


def kind_of(stream: BinaryIO) -> str | None:
    """The key of PLUGINS of the format that a file begins like, None where it is another."""
    stream.seek(0)
    head = stream.read(64)
    if head.startswith(_JXL):
        return "JXL"
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    return "HEIF" if brands & _HEVC or (head[8:12] in _CONTAINERS and not brands & _AV1) else None


def require(kind: str, what: str) -> None:
    """Register the plug-in of ``kind``, a key of PLUGINS; ImageError that begins with ``what`` where there is none."""
    plugin = PLUGINS[kind]
    try:
        module = importlib.import_module(plugin.module)
        if kind not in Image.OPEN:
            module.register_heif_opener()  # JPEG XL's does so when it is imported
    except ImportError as problem:
        install = f"pip install {plugin.package}, or this package with its extra formats"
        missing = isinstance(problem, ModuleNotFoundError)
        why = "" if missing else f", which cannot be loaded here ({' '.join(str(problem).split())})"
        raise ImageError(f"{what}: {plugin.title} takes a plug-in of Pillow{why}: {install}") from problem
