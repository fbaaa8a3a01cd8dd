"""Which files of a folder are images, and some of many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from mga_kernels.errors import ImageError, reason_of
from mga_kernels.images import suffixes

image_suffixes = cache(suffixes)
Item = TypeVar("Item")


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other files) directly inside ``folder``, by name. Hidden files and subfolders are in neither.

    What is named as an image counts as one, also where it cannot be read, such as a link that leads nowhere or a pipe:
    reading it says so, and nothing is passed over in silence.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and not _is_folder(entry))
    except FileNotFoundError:
        raise ImageError(f"the folder {folder} does not exist") from None
    except (OSError, ValueError) as problem:
        raise ImageError(f"{folder} cannot be read as a folder ({reason_of(problem)})") from problem
    images: list[Path] = []
    others: list[Path] = []
    for name in names:
        (images if os.path.splitext(name)[1].lower() in image_suffixes() else others).append(folder / name)
    return images, others


def subfolders(folder: Path) -> list[Path]:
    """The folders directly inside ``folder``, by name, but for hidden ones and links, which may lead back up.

    None of them where it cannot be read, which ``list_images`` says.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry, links=False))
    except (OSError, ValueError):
        return []
    return [folder / name for name in names]


def _is_folder(entry: os.DirEntry[str], links: bool = True) -> bool:
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:  # a link that cannot be followed
        return False


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly."""
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, min(len(items), most))]
