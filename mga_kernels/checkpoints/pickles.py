"""What the pickles of a PyTorch file ask for, read without executing them.

``torch.load(weights_only=True)`` runs no foreign code, but among what it allows are calls that take as much memory as
a file of a few bytes says, such as ``bytearray(10**12)``. A state dict needs none of them.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

LEGACY_PICKLES = 5  # of a file that is no archive: magic number, version, system, contents, keys of the storages
NEEDED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.storage \w+Storage"
    r"|torch (\w+Storage|Size|float32|float64|float16|bfloat16|u?int(8|16|32|64)|bool)|torch\.serialization \w*"
)


def unneeded(path: Path) -> str | None:
    """The first thing that is named by the pickles of a file and that a state dict does not need, as module.name.

    ValueError, EOFError or another error of a damaged file where they cannot be read.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            return _first(stream for _ in range(LEGACY_PICKLES))
    with zipfile.ZipFile(path) as archive:
        return _first(archive.open(entry) for entry in archive.infolist() if entry.filename.endswith(".pkl"))


def _first(streams: Iterable[IO[bytes]]) -> str | None:
    for stream in streams:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST"):  # their names are not in sight
                return f"an object by {operation.name}"
            if operation.name == "GLOBAL" and not NEEDED.fullmatch(str(argument)):
                return str(argument).replace(" ", ".")
    return None
