"""Sub-images of HR images and their LR images: what a pack is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import read_image

from ..evaluation.resize import imresize, shrink_for_scale
from ..files.folders import list_images
from .packs import Pair, check_name

Named = tuple[str, Pair]


@dataclass(frozen=True)
class Cutting:
    """Which sub-images of which files. ``lr``: folder of LR images of the same names; None: made by bicubic shrinking.

    ``tile`` and ``step`` are pixels of HR images (0: whole images, and ``tile``). Each image is used at 1/N of its size
    for each N of ``shrink``; of all sub-images every ``every``th is kept, of those the share ``hardest`` that bicubic
    interpolation restores worst. The last ``skip`` images of each folder are left out, or only the last ``only`` taken.
    """

    folders: Sequence[Path]
    scale: int
    lr: Path | None = None
    tile: int = 480
    step: int = 0
    shrink: Sequence[int] = (1,)
    every: int = 1
    hardest: float = 1.0
    skip: int = 0
    only: int = 0

    def check(self) -> None:
        """InputError for settings that mean nothing."""
        for name in ("tile", "step"):
            if (side := getattr(self, name)) % self.scale or side < 0:
                raise InputError(f"prepare: --{name} {side} is not a multiple of the scale {self.scale}, 0 or more")
        if self.lr and list(self.shrink) != [1]:
            raise InputError(
                "prepare: --lr and --shrink exclude each other, since the LR images belong to the full size"
            )
        for name, given, least in (
            ("every", self.every, 1),
            ("skip", self.skip, 0),
            ("only", self.only, 0),
            ("shrink", min(self.shrink), 1),
        ):
            if given < least:
                raise InputError(f"prepare: --{name} must be {least} or more, got {given}")
        if len(set(self.shrink)) < len(self.shrink):
            raise InputError("prepare: --shrink has a number twice; give each once")
        if not 0 < self.hardest <= 1:
            raise InputError(f"prepare: --hardest must be more than 0 and at most 1, got {self.hardest}")

    def files(self, folder: Path) -> list[Path]:
        found, _ = list_images(folder)
        if len(found) <= max(self.skip, self.only - 1, 0):
            raise ImageError(f"{folder} holds {len(found)} images, too few for --skip {self.skip} --only {self.only}")
        return found[len(found) - self.only :] if self.only else found[: len(found) - self.skip]

    def check_names(self, pack: Path) -> None:
        """InputError, before anything is read, for images that ``pack`` would have to call the same, or cannot name."""
        known: dict[str, Path] = {}
        for folder in self.folders:
            for file in self.files(folder):
                name = f"{folder.name}/{file.stem}"
                if name in known:
                    raise InputError(
                        f"prepare: {known[name]} and {file} would have the same name in the pack, {name}; rename one "
                        "of the files or folders, or make a pack of each, of which a training takes any number"
                    )
                check_name(pack, name)
                known[name] = file

    def pairs(self) -> Iterator[Named]:
        """(name, (hr, lr)) of all that is kept."""
        if self.hardest == 1:
            return self.sub_images()
        errors = [bicubic_error(*pair) for _, pair in self.sub_images()]
        count = max(1, round(self.hardest * len(errors)))
        kept = set(np.argsort(errors, kind="stable")[-count:].tolist())
        return (item for number, item in enumerate(self.sub_images()) if number in kept)

    def sub_images(self) -> Iterator[Named]:
        """(name, (hr, lr)) of every sub-image of every image at every size, hard or not."""
        number, scale = 0, self.scale
        for folder in self.folders:
            for file in track(self.files(folder), f"reading {folder.name}"):
                image = read_image(file).rgb
                for shrink in self.shrink:
                    hr, lr = self._pair(image, file, shrink)
                    for y, x, part in _tiles(hr, self.tile, self.step or self.tile):
                        number += 1
                        if (number - 1) % self.every == 0:
                            rows, columns = part.shape[:2]
                            cut = lr[y // scale : (y + rows) // scale, x // scale : (x + columns) // scale]
                            yield f"{folder.name}/{file.stem}-{shrink}-{y}-{x}", (part, cut)

    def _pair(self, image: np.ndarray, file: Path, shrink: int) -> Pair:
        hr = image if shrink == 1 else imresize(image, 1 / shrink)
        if min(hr.shape[:2]) < self.scale:
            size = f"{hr.shape[1]}x{hr.shape[0]}{f' at 1/{shrink} of its size' if shrink > 1 else ''}"
            raise ImageError(f"prepare: {file} is {size}, too small for x{self.scale}; leave it out")
        if self.lr is None:
            return shrink_for_scale(hr, self.scale)
        candidates = [self.lr / f"{file.stem}{end}{file.suffix}" for end in ("", f"x{self.scale}")]
        found = next((path for path in candidates if path.exists()), None)
        if found is None:
            raise ImageError(f"{file} has no LR image: neither {candidates[0]} nor {candidates[1].name} exists")
        lr = read_image(found).rgb
        height, width = (side * self.scale for side in lr.shape[:2])
        if not (height <= hr.shape[0] < height + self.scale and width <= hr.shape[1] < width + self.scale):
            raise ImageError(
                f"{found} is {lr.shape[1]}x{lr.shape[0]}, which at scale {self.scale} is not the size of {file}, "
                f"{hr.shape[1]}x{hr.shape[0]}"
            )
        return hr[:height, :width], lr


def bicubic_error(hr: np.ndarray, lr: np.ndarray) -> float:
    """Mean squared error (grey levels squared) of bicubic interpolation, by which sub-images are ranked."""
    restored = imresize(lr, hr.shape[0] / lr.shape[0])
    return float(np.square(restored.astype(np.float32) - hr).mean())


def _tiles(hr: np.ndarray, side: int, step: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Sub-images side by side; an image smaller than one is kept whole, remainders at the border are dropped."""
    height, width = hr.shape[:2]
    if not side:
        yield 0, 0, hr
        return
    for y in range(0, max(1, height - side + 1), step):
        for x in range(0, max(1, width - side + 1), step):
            yield y, x, hr[y : y + side, x : x + side]
