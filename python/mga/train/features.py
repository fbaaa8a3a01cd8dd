"""Cache of coarse features. The Base-Net is frozen in steps 2 and 3, so each training image passes it once.

One file per image, size and orientation holds the feature as fp16, channels last, with the halo's border of zeros,
the HR image as uint8, and the mean absolute and mean squared error of the coarse image in each cell. Cells of all
images are then drawn freely, whatever image they come from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from mga_kernels.errors import InputError

from ..resize import imresize, shrink_for_scale
from .config import Folder, TrainConfig

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def luma_cells(difference: Tensor, cell: int) -> Tensor:
    """Mean absolute BT.601 luma of an RGB difference (B, 3, H, W) over cells of ``cell`` pixels: (B, H/cell, W/cell)."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=difference.dtype, device=difference.device) / 255
    luma = torch.einsum("bchw,c->bhw", difference, weights).abs()
    return torch.nn.functional.avg_pool2d(luma[:, None], cell)[:, 0]


@dataclass
class CachedImage:
    """``feature`` (H+2, W+2, C) fp16, ``hr`` (sH, sW, 3) uint8, ``error`` and ``squared`` (Hp, Wp) fp32 of RGB in 0..1."""

    feature: np.ndarray
    hr: np.ndarray
    error: np.ndarray
    squared: np.ndarray

    @classmethod
    def open(cls, path: Path) -> CachedImage:
        return cls(*(np.load(path / f"{f.name}.npy", mmap_mode="r") for f in fields(cls)))


def training_files(folder: Folder, held_out: bool) -> list[Path]:
    path = Path(folder.path)
    if not path.is_dir():
        raise InputError(f"train: there is no folder {path}; correct config.folders")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if len(files) <= folder.holdout:
        raise InputError(
            f"train: {path} holds {len(files)} images, of which {folder.holdout} are held out; none is left"
        )
    return files[len(files) - folder.holdout :] if held_out else files[: len(files) - folder.holdout]


def _variants(config: TrainConfig, held_out: bool) -> Iterator[tuple[str, Path, int, int]]:
    """(name, file, shrink, orientation) of every cached image."""
    for folder in config.folders:
        for file in training_files(folder, held_out):
            for shrink in folder.shrink:
                for orientation in range(1 if held_out else config.orientations):
                    yield f"{Path(folder.path).name}-{file.stem}-{shrink}-{orientation}", file, shrink, orientation


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the 8 flips and rotations: bit 0 turns by 90 degrees, bit 1 flips, bit 2 turns by 180 degrees."""
    image = np.rot90(image, (orientation & 1) + (orientation & 4) // 2)
    return image[:, ::-1] if orientation & 2 else image


class FeatureCache:
    """Features of the training (or held-out) images under ``out/cache``; made on first use, image by image."""

    def __init__(self, config: TrainConfig, base: nn.Module, value_range: float, held_out: bool = False):
        self.config, self.base, self.value_range = config, base, value_range
        self.device = next(base.parameters()).device
        root = Path(config.out) / "cache" / ("held-out" if held_out else "train")
        missing = [v for v in _variants(config, held_out) if not (root / v[0]).is_dir()]
        for name, file, shrink, orientation in track(missing, "caching features", disable=not missing):
            self._make(root / name, file, shrink, orientation)
        self.images = [CachedImage.open(root / name) for name, *_ in _variants(config, held_out)]

    @torch.no_grad()
    def _make(self, target: Path, file: Path, shrink: int, orientation: int) -> None:
        scale, patch = self.config.scale, self.config.patch_size
        image = np.asarray(Image.open(file).convert("RGB"))
        if shrink > 1:
            image = imresize(image, 1 / shrink)
        height, width = (side - side % (scale * patch) for side in image.shape[:2])
        hr, lr = shrink_for_scale(oriented(image[:height, :width], orientation), scale)
        tensor = torch.from_numpy(lr.copy()).to(self.device).permute(2, 0, 1)[None].float() * (self.value_range / 255)
        coarse, feature = self.base(tensor.contiguous(memory_format=torch.channels_last))
        wanted = torch.from_numpy(hr.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255
        difference = (coarse / self.value_range).clamp(0, 1) - wanted
        cells = [
            torch.nn.functional.avg_pool2d(d.mean(dim=1), scale * patch)[0]
            for d in (difference.abs(), difference.square())
        ]
        padded = torch.nn.functional.pad(feature[0], (1, 1, 1, 1)).permute(1, 2, 0).half()
        partial = target.with_name(target.name + ".part")
        partial.mkdir(parents=True, exist_ok=True)
        cached = CachedImage(padded.cpu().numpy(), hr, *(cell.float().cpu().numpy() for cell in cells))
        for f in fields(cached):
            np.save(partial / f"{f.name}.npy", np.ascontiguousarray(getattr(cached, f.name)))
        os.replace(partial, target)

    def feature_std(self) -> Tensor:
        """Standard deviation (C,) of each feature channel over a sample of rows of every image."""
        rows = np.concatenate(
            [image.feature[1:-1:17, 1:-1].reshape(-1, image.feature.shape[-1]) for image in self.images]
        )
        return torch.from_numpy(rows.astype(np.float32).std(axis=0))


class CellSampler:
    """Batches of cells: feature patches (N, C, p+2, p+2) fp32 and HR patches (N, 3, sp, sp) fp32 in 0..1."""

    def __init__(self, cache: FeatureCache, hard_share: float, seed: int):
        self.images, self.hard_share = cache.images, hard_share
        self.patch, self.scale = cache.config.patch_size, cache.config.scale
        self.starts = np.cumsum([0] + [image.error.size for image in self.images])
        self.cumulative_error = np.cumsum(
            np.concatenate([image.error.ravel() for image in self.images]), dtype=np.float64
        )
        self.rng = np.random.default_rng(seed)

    def draw(self, count: int) -> np.ndarray:
        hard = int(round(self.hard_share * count))
        uniform = self.rng.integers(0, self.starts[-1], count - hard)
        ordered = np.searchsorted(
            self.cumulative_error, self.rng.random(hard) * self.cumulative_error[-1], side="right"
        )
        return np.sort(np.concatenate([uniform, ordered]))

    def _locate(self, cells: np.ndarray) -> Iterator[tuple[int, int]]:
        """(image, cell within it) of each cell."""
        numbers = np.searchsorted(self.starts, cells, side="right") - 1
        return zip(numbers.tolist(), (cells - self.starts[numbers]).tolist(), strict=True)

    def coarse_mse(self, cells: np.ndarray) -> float:
        """Mean squared error of the coarse image over these cells, RGB in 0..1."""
        return float(np.mean([self.images[number].squared.flat[cell] for number, cell in self._locate(cells)]))

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        return self.fetch(self.draw(count))

    def fetch(self, cells: np.ndarray) -> tuple[Tensor, Tensor]:
        count, p, hr_side = len(cells), self.patch, self.patch * self.scale
        features = np.empty((count, p + 2, p + 2, self.images[0].feature.shape[-1]), np.float16)
        targets = np.empty((count, hr_side, hr_side, 3), np.uint8)
        for i, (number, cell) in enumerate(self._locate(cells)):
            image = self.images[number]
            y, x = divmod(cell, image.error.shape[1])
            features[i] = image.feature[y * p : y * p + p + 2, x * p : x * p + p + 2]
            targets[i] = image.hr[y * hr_side : (y + 1) * hr_side, x * hr_side : (x + 1) * hr_side]
        return (
            torch.from_numpy(features).permute(0, 3, 1, 2).float(),
            torch.from_numpy(targets).permute(0, 3, 1, 2).float() / 255,
        )
