"""Training sets as one file: HR images beside their LR images, in bytes, read by parts and without decoding.

A pack is a safetensors file with tensors ``hr/NAME`` (sH, sW, 3) and ``lr/NAME`` (H, W, 3), uint8, and the scale in its
metadata. It is mapped into memory, so a pack may be larger than memory, and several processes share it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mga_kernels.errors import InputError
from mga_kernels.files import whole_file

from .features import oriented

Pair = tuple[np.ndarray, np.ndarray]


def write_pack(path: Path, pairs: Iterable[tuple[str, Pair]], scale: int) -> int:
    """Write (name, (hr, lr)) pairs as they come; returns how many. The file appears whole or not at all."""
    header: dict[str, object] = {"__metadata__": {"scale": str(scale)}}
    offset = count = 0
    body = path.with_name(path.name + ".body")
    try:
        with body.open("xb") as stream:
            for name, images in pairs:
                count += 1
                for kind, image in zip(("hr", "lr"), images, strict=True):
                    header[f"{kind}/{name}"] = {
                        "dtype": "U8",
                        "shape": list(image.shape),
                        "data_offsets": [offset, offset + image.nbytes],
                    }
                    stream.write(np.ascontiguousarray(image).data)
                    offset += image.nbytes
        if not count:
            raise InputError(f"prepare: there is nothing to write to {path}")
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with whole_file(path) as target, body.open("rb") as stream:
            target.write(struct.pack("<Q", len(text)) + text)
            while chunk := stream.read(1 << 24):
                target.write(chunk)
    except OSError as error:
        raise InputError(f"prepare: cannot write {path}: {error.strerror or error}") from error
    finally:
        body.unlink(missing_ok=True)
    return count


def open_pack(path: str | os.PathLike, scale: int) -> list[Pair]:
    """The (hr, lr) pairs of a pack, mapped; InputError for a file that is missing, no pack, or of another scale."""
    if not Path(path).is_file():
        raise InputError(f"train: there is no pack {path}; `mga prepare` makes one")
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("scale")
            names = [name.removeprefix("hr/") for name in file.keys() if name.startswith("hr/")]
            pairs = [(file.get_tensor(f"hr/{name}").numpy(), file.get_tensor(f"lr/{name}").numpy()) for name in names]
    except (SafetensorError, OSError) as error:
        raise InputError(f"train: {path} is not a pack: {error}; `mga prepare` makes one") from None
    if found != str(scale):
        raise InputError(f"train: {path} holds pairs of scale {found}, the configuration has scale {scale}")
    for name, (hr, lr) in zip(names, pairs, strict=True):
        if hr.shape != (lr.shape[0] * scale, lr.shape[1] * scale, 3):
            raise InputError(f"train: {path}: {name} has HR {hr.shape} and LR {lr.shape}, which is not scale {scale}")
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


class Crops:
    """Batches of random crops in random orientations (section 4.1).

    ``groups`` of pairs (HR, LR) are drawn from equally often, images of one in proportion to their area.

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
        self.part, self.device = slice(rank, None, world), torch.device(device)
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
        for image, place, turn in list(zip(chosen, places, turns, strict=True))[slice(None) if whole else self.part]:
            hr, lr = self.pairs[image]
            y, x = (int(p * (side - self.crop + 1)) for p, side in zip(place, lr.shape[:2], strict=True))
            crops.append(tuple(oriented(self._cut(a, y, x, f), int(turn)) for a, f in ((hr, self.scale), (lr, 1))))
        return to_bytes(crops)  # type: ignore[arg-type]

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
