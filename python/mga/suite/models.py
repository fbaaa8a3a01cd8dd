"""What makes the images of a row: a model in one of its variants, a published network, or MATLAB's bicubic."""

from __future__ import annotations

import hashlib
import statistics
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mga_kernels.checkpoints import load_model, read_metadata, read_state_dict
from mga_kernels.checkpoints.native import find_model
from mga_kernels.engine import MaskGuidedSR
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.pictures import to_tensor, to_uint8

from ..complexity import NetworkCosts
from ..model_options import parse_split
from ..resize import imresize
from .config import ModelEntry
from .mask import MaskPair, predict

PHOTOGRAPHS = 3  # that are timed


@dataclass(frozen=True)
class Row:
    """One row of the table. ``file`` None is bicubic; ``k`` and ``fraction`` None is the model's own K."""

    label: str
    file: str | None
    variant: str = "masked"
    k: int | None = None
    fraction: float | None = None
    selection: str | None = None
    seed: int = 0
    network: str = ""
    split: str = ""


class Runner:
    """Runs the rows of one model; what several rows need is made once."""

    def __init__(self, entry: ModelEntry, scale: int, device: str, dtype: str):
        self.entry, self.scale, self.device, self.dtype = entry, scale, device, dtype
        self.path = find_model(entry.file)
        self.training = {} if entry.network else read_metadata(self.path)["training"]
        network = self._load()
        if network.config.scale != scale:
            raise InputError(f"evaluate: the model {entry.file} is for x{network.config.scale}, not for x{scale}")
        self.model = MaskGuidedSR(network, None, None, device, dtype, runtime="pytorch")
        self._masks: dict[str, list[MaskPair]] = {}

    def _load(self) -> MaskGuidedNetwork:
        """The network of the entry; the Refine-Net and the mask of a published one are not used."""
        if not self.entry.network:
            return load_model(self.path)
        split = parse_split(self.entry.split) if self.entry.split else ()
        network = MaskGuidedNetwork(ModelConfig(self.entry.network, self.scale, split=split))
        try:
            network.base.load_state_dict(read_state_dict(self.path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"evaluate: {self.path} is not the Base-Net of {self.entry.network} x{self.scale} with blocks "
                f"{'+'.join(map(str, network.config.split))}: {reason}; set the split that it has, or another network"
            ) from None
        return network.eval()

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        return f"{digest} {self.entry.network} {self.entry.split}"

    @cached_property
    def costs(self) -> NetworkCosts:
        return NetworkCosts(self.model.config)

    def upscale(self, row: Row, lr: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> uint8 (s h, s w, 3)."""
        image = self.model(to_tensor(lr), row.variant, *self._share(row), selection=row.selection, seed=row.seed)
        return to_uint8(image[0])

    def count(self, row: Row, height: int, width: int) -> int:
        """K of an LR image of this size."""
        return self.model.resolve_k(height, width, *self._share(row))

    @staticmethod
    def _share(row: Row) -> tuple[int | None, float | None]:
        return (row.k, row.fraction) if row.variant == "masked" else (None, None)

    def gmacs(self, row: Row, width: int, height: int) -> float:
        """10^9 multiply-accumulates by the paper's convention for an LR image of this size."""
        return self.costs.cost(row.variant, width, height, self.count(row, height, width)).macs / 1e9

    def masks(self, key: str, images: list[np.ndarray]) -> list[MaskPair]:
        if key not in self._masks:
            self._masks[key] = [predict(self.model, lr) for lr in images]
        return self._masks[key]

    def photograph_seconds(self, row: Row, width: int, height: int) -> float:
        """Median time of a photograph of this LR size, in the way in which the model runs it."""
        amount: dict[str, Any] = {"k": row.k, "fraction": row.fraction}
        if row.variant != "masked":
            instead: dict[str, dict[str, Any]] = {"base": {"k": 0}, "all": {"fraction": 1.0}}
            amount = instead.get(row.variant, {"mode": "dense"})
        model = MaskGuidedSR(self._load(), device=self.device, dtype=self.dtype, **amount)
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return median_time(lambda: model.upscale(image))


class Bicubic:
    """The runner of the bicubic row."""

    fingerprint = "bicubic"

    def __init__(self, scale: int):
        self.scale = scale

    def upscale(self, row: Row, lr: np.ndarray) -> np.ndarray:
        return imresize(lr, self.scale)

    def photograph_seconds(self, row: Row, width: int, height: int) -> float:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return median_time(lambda: imresize(image, self.scale))


def median_time(run) -> float:
    """Seconds of a call, the first of which is not counted."""
    run()
    times = []
    for _ in range(PHOTOGRAPHS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def file_name(row: Row) -> str | None:
    return None if row.file is None else Path(row.file).name
