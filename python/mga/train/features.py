"""Cache of coarse features. The Base-Net is frozen in steps 2 and 3, so each training image passes it once.

Each image is used at several sizes, and each of those in several views: another flip or rotation, and another shift
of the grid on which its LR image is sampled. (A flip alone shows the network nothing new about the image: the same LR
pixels lead to the same HR pixels.) One folder per view holds the feature as fp16, channels last, with the halo's
border of zeros; the image to be restored; and the mean absolute and mean squared error of the coarse image in each
cell. Cells of all images are then drawn freely, whatever image they come from.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from mga_kernels.errors import InputError
from mga_kernels.images import read_image

from ..resize import imresize, shrink_for_scale
from .config import Folder, TrainConfig
from .packs import oriented

FIT_PIXELS = 25_000
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def luma_cells(difference: Tensor, cell: int) -> Tensor:
    """Mean absolute BT.601 luma of an RGB difference (B, 3, H, W) in each cell of ``cell`` x ``cell`` pixels."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=difference.dtype, device=difference.device) / 255
    luma = torch.einsum("bchw,c->bhw", difference, weights).abs()
    return torch.nn.functional.avg_pool2d(luma[:, None], cell)[:, 0]


@dataclass
class CachedImage:
    """``feature`` (H+2, W+2, C), ``target`` (sH, sW, 3) fp16; ``error``, ``squared`` (Hp, Wp) fp32; RGB in 0..1."""

    feature: np.ndarray
    target: np.ndarray
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


def _sized_images(config: TrainConfig, held_out: bool) -> Iterator[tuple[str, Path, int]]:
    """(name, file, shrink) of every image at every size it is used in."""
    for folder in config.folders:
        for file in training_files(folder, held_out):
            for shrink in folder.shrink:
                yield f"{Path(folder.path).name}-{file.stem}-{shrink}", file, shrink


def view(image: np.ndarray, number: int, scale: int) -> np.ndarray:
    """View ``number`` (0..7) of an HR image: its sampling grid shifted by less than ``scale`` pixels, then turned."""
    down, right = number % scale, (number + number // scale * max(1, scale // 2)) % scale
    return oriented(image[down:, right:], number)


def linear_part(residual: np.ndarray, feature: np.ndarray) -> np.ndarray:
    """What a linear filter of the feature, fitted to this one image, explains of its residual.

    ``residual`` (sH, sW, 3), HR image minus coarse image; ``feature`` (H+2, W+2, C) with its border of zeros; the
    result has the shape of ``residual``. The filter is 3x3, as that of the upsampler, and fitted by least squares on up
    to FIT_PIXELS pixels.
    """
    height, width, channels = feature.shape[0] - 2, feature.shape[1] - 2, feature.shape[2]
    scale = len(residual) // height
    planes = torch.from_numpy(feature.astype(np.float32)).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.pixel_unshuffle(torch.from_numpy(residual).permute(2, 0, 1)[None], scale)
    pixels = torch.arange(0, height * width, max(1, height * width // FIT_PIXELS))
    windows = planes.unfold(2, 3, 1).unfold(3, 3, 1)[0]  # (C, H, W, 3, 3)
    rows = windows[:, pixels // width, pixels % width].transpose(0, 1).reshape(len(pixels), -1).double()
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    normal = rows.T @ rows
    normal.diagonal().mul_(1 + 1e-4)
    weights = torch.linalg.solve(normal, rows.T @ wanted[0].flatten(1)[:, pixels].T.double()).float()
    filters = weights[:-1].T.reshape(-1, channels, 3, 3)
    explained = torch.nn.functional.conv2d(planes, filters, weights[-1])
    return torch.nn.functional.pixel_shuffle(explained, scale)[0].permute(1, 2, 0).numpy()


class FeatureCache:
    """Features of the training (or held-out) images under ``out/cache``; made on first use, image by image."""

    def __init__(self, config: TrainConfig, base: nn.Module, value_range: float, held_out: bool = False):
        self.config, self.base, self.value_range = config, base, value_range
        self.device = next(base.parameters()).device
        self.views = 1 if held_out else config.views
        root = Path(config.out) / "cache" / ("held-out" if held_out else "train")
        images = list(_sized_images(config, held_out))
        missing = [image for image in images if not (root / image[0]).is_dir()]
        for name, file, shrink in track(missing, "caching features", disable=not missing):
            self._make(root / name, file, shrink)
        self.images = [
            CachedImage.open(root / name / str(number)) for name, *_ in images for number in range(self.views)
        ]

    def _make(self, target: Path, file: Path, shrink: int) -> None:
        image = read_image(file).rgb
        if shrink > 1:
            image = imresize(image, 1 / shrink)
        partial = target.with_name(target.name + ".part")
        for number in range(self.views):
            cached = self._cached(view(image, number, self.config.scale))
            (partial / str(number)).mkdir(parents=True, exist_ok=True)
            for f in fields(cached):
                np.save(partial / str(number) / f"{f.name}.npy", np.ascontiguousarray(getattr(cached, f.name)))
        os.replace(partial, target)

    @torch.no_grad()
    def _cached(self, hr: np.ndarray) -> CachedImage:
        """What is kept of an HR image (H, W, 3) uint8, cropped to whole cells."""
        cell = self.config.scale * self.config.patch_size
        hr, lr = shrink_for_scale(hr[: len(hr) // cell * cell, : hr.shape[1] // cell * cell], self.config.scale)
        tensor = torch.from_numpy(lr.copy()).to(self.device).permute(2, 0, 1)[None].float() * (self.value_range / 255)
        coarse, feature = self.base(tensor.contiguous(memory_format=torch.channels_last))
        coarse = (coarse[0] / self.value_range).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        padded = torch.nn.functional.pad(feature[0], (1, 1, 1, 1)).permute(1, 2, 0).half().cpu().numpy()
        residual = hr / np.float32(255) - coarse
        if self.config.normalise:
            residual -= linear_part(residual, padded)
        errors = (self._cell_mean(d) for d in (np.abs(residual), np.square(residual)))
        return CachedImage(padded, (coarse + residual).astype(np.float16), *errors)

    def _cell_mean(self, values: np.ndarray) -> np.ndarray:
        """(sH, sW, 3) -> mean of each cell (Hp, Wp) fp32."""
        side = self.config.scale * self.config.patch_size
        height, width = values.shape[:2]
        return values.reshape(height // side, side, width // side, side, 3).mean((1, 3, 4), dtype=np.float32)

    def first_views(self, count: int) -> FeatureCache:
        """The same cache with only the first ``count`` views of each image."""
        result = copy.copy(self)
        result.images = [image for i, image in enumerate(self.images) if i % self.views < count]
        result.views = min(count, self.views)
        return result

    def largest_features(self) -> Tensor:
        """Largest magnitude (C,) of each channel over all images."""
        return torch.from_numpy(
            np.max([np.abs(image.feature).max(axis=(0, 1)) for image in self.images], axis=0)
        ).float()

    def feature_samples(self) -> Tensor:
        """Features (N, C) float64 at the pixels of every 17th row of every image."""
        rows = [image.feature[1:-1:17, 1:-1].reshape(-1, image.feature.shape[-1]) for image in self.images]
        return torch.from_numpy(np.concatenate(rows).astype(np.float64))


class CellSampler:
    """Batches of cells: feature patches (N, C, p+2, p+2) and the patches to restore (N, 3, sp, sp) in 0..1, fp32.

    ``hard_share`` of a batch is drawn in proportion to the error of the coarse image, the rest uniformly. How large the
    error is depends on the HR image, so a plain mean over such cells would teach what does not hold over all of them
    (too sharp an image); ``weights`` undo it.
    """

    def __init__(self, cache: FeatureCache, hard_share: float, seed: int):
        self.images, self.hard_share = cache.images, hard_share
        self.patch, self.scale = cache.config.patch_size, cache.config.scale
        self.starts = np.cumsum([0] + [image.error.size for image in self.images])
        self.error = np.concatenate([image.error.ravel() for image in self.images])
        self.cumulative_error = np.cumsum(self.error, dtype=np.float64)
        self.rng = np.random.default_rng(seed)

    def draw(self, count: int) -> np.ndarray:
        hard = round(self.hard_share * count)
        uniform = self.rng.integers(0, self.starts[-1], count - hard)
        ordered = np.searchsorted(
            self.cumulative_error, self.rng.random(hard) * self.cumulative_error[-1], side="right"
        )
        return np.sort(np.concatenate([uniform, ordered]))

    def weights(self, cells: np.ndarray) -> Tensor:
        """Factors (N,) with which the mean over cells as ``draw`` returns them is on average that over all cells."""
        mean = self.cumulative_error[-1] / self.starts[-1]
        return torch.from_numpy(1 / (1 - self.hard_share + self.hard_share * self.error[cells] / mean)).float()

    def _locate(self, cells: np.ndarray) -> Iterator[tuple[int, int]]:
        """(image, cell within it) of each cell."""
        numbers = np.searchsorted(self.starts, cells, side="right") - 1
        return zip(numbers.tolist(), (cells - self.starts[numbers]).tolist(), strict=True)

    def coarse_mse(self, cells: np.ndarray) -> float:
        """Mean squared error of the coarse image over these cells, RGB in 0..1."""
        return float(np.mean([self.images[number].squared.flat[cell] for number, cell in self._locate(cells)]))

    def fetch(self, cells: np.ndarray) -> tuple[Tensor, Tensor]:
        count, p, side = len(cells), self.patch, self.patch * self.scale
        features = np.empty((count, p + 2, p + 2, self.images[0].feature.shape[-1]), np.float16)
        targets = np.empty((count, side, side, 3), np.float16)
        for i, (number, cell) in enumerate(self._locate(cells)):
            image = self.images[number]
            y, x = divmod(cell, image.error.shape[1])
            features[i] = image.feature[y * p : y * p + p + 2, x * p : x * p + p + 2]
            targets[i] = image.target[y * side : (y + 1) * side, x * side : (x + 1) * side]
        features, targets = (torch.from_numpy(array).permute(0, 3, 1, 2).float() for array in (features, targets))
        return features, targets
