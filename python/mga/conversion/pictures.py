"""The user's images as training pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import track

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import read_image

from ..console.failures import Failures, line_about
from ..evaluation.resize import imresize, shrink_for_scale
from ..files.folders import list_images, spread
from ..training.packs import Pair

SIDE = 768  # of larger images a square of this side is taken, in LR pixels
MOST = 300  # images that are read, spread evenly over the folder
Value = TypeVar("Value")
HELD_OUT = 8  # at most, and at most a fifth of all


def read_pairs(folder: Path, scale: int, crop: int, extend: bool) -> tuple[list[list[Pair]], list[Pair]]:
    """Groups of pairs to train on, and pairs to look at.

    To ``extend``, the images are HR: one group of pairs (HR, LR), LR by bicubic shrinking. Otherwise they are LR, for
    which the teacher makes what is wanted, and stand in both places: a group of them as they are, and one of them, much
    sharper, shrunk by the scale. Those with a side of less than ``crop`` LR pixels are left out, and so are files that
    cannot be read, with a line about each; InputError where no other is there.
    """

    def pairs_in(file: Path) -> list[Pair | None]:
        return [pair if min(pair[1].shape[:2]) >= crop else None for pair in _pairs_of(file, scale, extend)]

    found = _of_files(folder, MOST, pairs_in, crop * scale if extend else crop)
    count = min(HELD_OUT, len(found) // 5)
    train, held_out = found[: len(found) - count], found[len(found) - count :]
    groups = [[*filter(None, kind)] for kind in zip(*train, strict=True)]
    return [group for group in groups if group], [next(filter(None, pairs)) for pairs in held_out]


def middles(folder: Path, count: int, side: int) -> list[np.ndarray]:
    """The middle of at most so many images, spread evenly, with sides of at most ``side``; errors as of
    ``read_pairs``."""
    found = _of_files(folder, count, lambda file: [middle(read_image(file).rgb, side)], 1)
    return [part for parts in found for part in parts if part is not None]


def _of_files(
    folder: Path, count: int, read: Callable[[Path], list[Value | None]], least: int
) -> list[list[Value | None]]:
    """What ``read`` makes of ``count`` files at most, without those of which it makes nothing."""
    files = spread(list_images(folder)[0], count)
    found = []
    faults: list[tuple[Path, Exception]] = []
    for file in track(files, "reading images"):
        try:
            made = read(file)
        except Exception as error:
            faults.append((file, error))
            continue
        found += [made] if any(one is not None for one in made) else []
    if faults and not found:
        raise ImageError(f"convert: {line_about(*faults[0])}")
    failures = Failures()
    for fault in faults:
        failures.add(*fault)
    if not found:
        raise InputError(
            f"convert: {folder} holds {len(files)} images, and none with sides of {least} pixels or more; "
            "give a folder of larger images"
        )
    return found


def _pairs_of(file: Path, scale: int, extend: bool) -> list[Pair]:
    """One of each group."""
    image = read_image(file).rgb
    if min(image.shape[:2]) < scale:
        return []
    if extend:
        return [shrink_for_scale(middle(image, SIDE * scale), scale)]
    image = middle(image, SIDE * scale)
    small = imresize(image, 1 / scale)
    return [(lr, lr) for lr in (middle(image, SIDE), small)]


def middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])
