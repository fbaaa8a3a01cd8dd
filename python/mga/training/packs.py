"""Training sets as one file: HR images beside their LR images, in bytes, read by parts and without decoding.

A pack is a safetensors file with tensors ``hr/NAME`` (sH, sW, 3) and ``lr/NAME`` (H, W, 3), uint8, and the scale in its
metadata. It is mapped into memory, so a pack may be larger than memory, and several processes share it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mga_kernels.errors import InputError, reason_of
from mga_kernels.system.files import whole_file

from .colour import recoloured

Pair = tuple[np.ndarray, np.ndarray]
LARGEST_HEADER = 99_000_000  # bytes of names and shapes; a safetensors file may have 100 MB of them
COPIED = 1 << 24  # bytes at a time


def write_pack(path: Path, pairs: Iterable[tuple[str, Pair]], scale: int) -> int:
    """Write (name, (hr, lr)) pairs as they come; returns how many. The file appears whole or not at all.

    InputError for what ``open_pack`` would not read: a name that is there already or is no text, images that are not
    uint8 (H, W, 3) with sides of 1 or more, HR of another size than ``scale`` times LR, no pair at all, or so many that
    their names do not fit.
    """
    names: set[str] = set()
    header = [f'{{"__metadata__": {{"scale": "{scale}"}}']
    offset = length = 0
    with _writing(path):
        body = tempfile.TemporaryFile(dir=path.parent)  # without a name, so it is nobody else's and never left behind
    with body:
        for name, pair in pairs:
            if name in names:
                raise InputError(f"prepare: {path} would hold two pairs called {name}; rename one of the images")
            check_name(path, name)
            if fault := _fault(*pair, scale):
                raise InputError(f"prepare: {path} cannot hold {name}: {fault}")
            names.add(name)
            for kind, image in zip(("hr", "lr"), pair, strict=True):
                place = {"dtype": "U8", "shape": image.shape, "data_offsets": (offset, offset + image.nbytes)}
                header.append(f", {json.dumps(f'{kind}/{name}')}: {json.dumps(place)}")
                length, offset = length + len(header[-1]), offset + image.nbytes
                with _writing(path):
                    body.write(np.ascontiguousarray(image).data)
            if length > LARGEST_HEADER:
                raise InputError(
                    f"prepare: {len(names):,} pairs are more than {path} may hold; make several packs, of which a "
                    "training takes any number, or larger sub-images (--tile)"
                )
        if not names:
            raise InputError(f"prepare: there is nothing to write to {path}")
        text = "".join([*header, "}"]).encode()
        text += b" " * (-len(text) % 8)
        with _writing(path):
            body.seek(0)
            with whole_file(path) as target:
                target.write(struct.pack("<Q", len(text)) + text)
                shutil.copyfileobj(body, target, COPIED)
    return len(names)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system says while bytes go to the pack, in a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"prepare: cannot write {path}: {reason_of(error)}") from error


def check_name(path: Path, name: str) -> None:
    """InputError for a name that JSON, in which the file lists them, cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"prepare: {path} cannot hold {name!r}, a name that is no UTF-8; rename the image") from None


def _fault(hr: np.ndarray, lr: np.ndarray, scale: int) -> str | None:
    """Why these are no pair of a pack; None where they are one."""
    for kind, image in (("HR", hr), ("LR", lr)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            return f"its {kind} image is {image.dtype} {image.shape}, which is not uint8 (H, W, 3)"
    if hr.shape != (lr.shape[0] * scale, lr.shape[1] * scale, 3):
        return f"it has HR {hr.shape} and LR {lr.shape}, which is not scale {scale}"
    return None


def open_pack(path: str | os.PathLike, scale: int) -> list[Pair]:
    """The (hr, lr) pairs of a pack, mapped; InputError for a file that is missing, no pack, or of another scale."""
    if not Path(path).is_file():
        raise InputError(f"train: there is no pack {path}; `mga prepare` makes one")
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("scale")
            names = [name.removeprefix("hr/") for name in file.keys() if name.startswith("hr/")]
            pairs = [(file.get_tensor(f"hr/{name}").numpy(), file.get_tensor(f"lr/{name}").numpy()) for name in names]
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"train: {path} is not a pack: {error}; `mga prepare` makes one") from None
    if not pairs:
        raise InputError(f"train: {path} holds no pairs; `mga prepare` makes packs")
    if found != str(scale):
        raise InputError(f"train: {path} holds pairs of scale {found}, the configuration has scale {scale}")
    for name, pair in zip(names, pairs, strict=True):
        if fault := _fault(*pair, scale):
            raise InputError(f"train: {path} is not a pack: {name}: {fault}")
    return pairs


def to_bytes(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """(LR, HR) uint8, channels-last, of pairs of one size."""
    hr, lr = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    return tuple(torch.from_numpy(a).permute(0, 3, 1, 2) for a in (lr, hr))  # type: ignore[return-value]


def to_floats(batch: Iterable[Tensor], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """float32 in 0..1 on the device, to which bytes travel."""
    return tuple(images.to(device, non_blocking=True).float().div_(255) for images in batch)  # type: ignore[return-value]


def to_tensors(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """(LR, HR) float32 in 0..1, channels-last, of pairs of one size."""
    return to_floats(to_bytes(pairs))


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the 8 flips and rotations: bit 0 turns by 90 degrees, bit 2 by 180 degrees, then bit 1 flips."""
    image = np.rot90(image, (orientation & 1) + (orientation & 4) // 2)
    return image[:, ::-1] if orientation & 2 else image


class Crops:
    """Batches of random crops in random orientations (section 4.1).

    ``groups`` of pairs (HR, LR) are drawn from equally often, images of one in proportion to their area. A share
    ``colours`` of the crops is recoloured (``mga.training.colour``).

    Batch n is a function of the seed and n alone, so a run that is resumed sees what one that never stopped sees. With
    several workers each takes its part of the same batch. The next batch is made while the current one is used, on the
    CPU as float32, for another ``device`` as bytes in pinned memory, which become float32 there.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Pair]],
        scale: int,
        crop: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        colours: float = 0.0,
    ):
        pairs = [pair for group in groups for pair in group]
        smallest = min(min(lr.shape[:2]) for _, lr in pairs)
        if smallest < crop:
            raise InputError(
                f"train: the smallest LR image has a side of {smallest} pixels, less than crop = {crop}; "
                "use larger images or a smaller crop"
            )
        if batch % world:
            raise InputError(f"train: a batch of {batch} cannot be shared by {world} processes; change batch")
        self.pairs, self.scale, self.crop, self.count, self.seed = pairs, scale, crop, batch, seed
        self.part, self.device, self.colours = slice(rank, None, world), torch.device(device), colours
        areas = [np.array([lr.shape[0] * lr.shape[1] for _, lr in group], np.float64) for group in groups]
        self.share = np.concatenate([area / area.sum() for area in areas]) / len(groups)
        self.pool = ThreadPoolExecutor(1)
        self.ahead: tuple[int, Future] | None = None

    def make(self, number: int, whole: bool = False) -> tuple[Tensor, Tensor]:
        """(LR, HR) of batch ``number`` on the device: this worker's part, or the ``whole`` of it."""
        return to_floats(self._bytes(number, whole), self.device)

    def _bytes(self, number: int, whole: bool = False) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, number])
        chosen = rng.choice(len(self.pairs), self.count, p=self.share)
        places, turns = rng.random((self.count, 2)), rng.integers(0, 8, self.count)
        crops = []
        for index in range(self.count)[slice(None) if whole else self.part]:
            hr, lr = self.pairs[chosen[index]]
            y, x = (int(p * (side - self.crop + 1)) for p, side in zip(places[index], lr.shape[:2], strict=True))
            turn = int(turns[index])
            crop = oriented(self._cut(hr, y, x, self.scale), turn), oriented(self._cut(lr, y, x, 1), turn)
            rng = self._colour_rng(number, index)
            crops.append(recoloured(*crop, rng) if rng.random() < self.colours else crop)
        return to_bytes(crops)

    def _colour_rng(self, number: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, index])  # of each crop its own: no draw changes another crop

    def in_own_colours(self, number: int) -> Tensor:
        """Bool (n): which crops of this worker's part of batch ``number`` were not recoloured."""
        part = range(self.count)[self.part]
        return torch.tensor([self._colour_rng(number, index).random() >= self.colours for index in part])

    def _early(self, number: int) -> tuple[Tensor, Tensor]:
        """What can be made of a batch before it is used."""
        if self.device.type == "cpu":
            return self.make(number)
        return tuple(images.pin_memory() for images in self._bytes(number))  # type: ignore[return-value]

    def _cut(self, image: np.ndarray, y: int, x: int, factor: int) -> np.ndarray:
        side = self.crop * factor
        return image[y * factor : y * factor + side, x * factor : x * factor + side]

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        made = self.ahead[1].result() if self.ahead is not None and self.ahead[0] == number else self._early(number)
        self.ahead = number + 1, self.pool.submit(self._early, number + 1)
        return made if self.device.type == "cpu" else to_floats(made, self.device)
