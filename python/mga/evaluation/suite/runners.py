"""What makes the images of a row: a model in one of its variants, a whole network, or MATLAB's bicubic."""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mga_kernels.checkpoints import read_metadata
from mga_kernels.checkpoints.native import find_model, is_native
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.engine.pictures import to_tensor, to_uint8
from mga_kernels.errors import InputError
from mga_kernels.networks import ClassNetwork

from ...complexity.counting import ClassCosts, Costs, costs_of
from ...files.records import Record
from ..masks import MaskPair, predict
from ..models import own_luma, refined
from ..photograph import photograph
from ..resize import imresize
from .config import ModelEntry

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
    colour: str = ""
    input_range: str = ""
    model_scale: int = 0

    def entry(self) -> ModelEntry:
        return ModelEntry(self.label, self.file or "", self.colour, self.input_range, self.model_scale)


class Runner:
    """Runs the rows of one model; what several rows need is made once."""

    def __init__(self, entry: ModelEntry, scale: int, device: str, dtype: str, photographs: bool = False):
        """``photographs``: images are made as photographs are, bytes to bytes in the fastest way."""
        self.entry, self._device, self.dtype, self.photographs = entry, device, dtype, photographs
        self.path, self._scale = find_model(entry.file), scale
        self.training = read_metadata(self.path)["training"] if is_native(self.path) else {}
        self.model = self._load(runtime="pytorch")
        if self.model.scale != scale:
            raise InputError(f"evaluate: the model {entry.file} is for x{self.model.scale}, not for x{scale}")
        self._masks: dict[str, list[MaskPair]] = {}
        self._photographer: tuple[Row, MaskGuidedSR] | None = None

    def _load(self, **settings: Any) -> MaskGuidedSR:
        decided = (self.entry.colour or None, self.entry.input_range or None, self.entry.model_scale or None)
        conventions: Record = dict(zip(("colour", "input_range", "scale"), decided, strict=True))
        conventions["expected_scale"] = self._scale
        return MaskGuidedSR.from_checkpoint(self.path, device=self._device, dtype=self.dtype, **conventions, **settings)

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, and of the code of a network that is not the package's."""
        digest = hashlib.sha256(self.path.read_bytes())
        for file in _own_code(self.model.model):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def costs(self) -> Costs:
        return costs_of(self.model.config)

    def upscale(self, row: Row, lr: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> uint8 (s h, s w, 3)."""
        if self.photographs:
            return np.asarray(self.photographer(row).upscale(lr))
        image = self.model(to_tensor(lr), row.variant, *self._share(row), selection=row.selection, seed=row.seed)
        return to_uint8(image[0])

    def luma(self, lr: np.ndarray) -> np.ndarray | None:
        """What a network of luma is compared by instead (``mga.evaluation.models``)."""
        return own_luma(self.model, lr)

    def count(self, row: Row, lr: np.ndarray) -> int | None:
        """Cells of an LR image, uint8 (h, w, 3), that are refined; None of a variant that refines no cells."""
        return refined(self.model, lr, *self._share(row)) if row.variant == "masked" else None

    @staticmethod
    def _share(row: Row) -> tuple[int | None, float | None]:
        return (row.k, row.fraction) if row.variant == "masked" else (None, None)

    def gmacs(self, row: Row, width: int, height: int) -> float | None:
        """10^9 multiply-accumulates by the paper's convention for an LR image of this size; None where a threshold
        decides."""
        share = self._share(row)
        if row.variant == "masked" and share == (None, None) and self.model.amount.threshold is not None:
            return None
        return self.costs.cost(row.variant, width, height, self.model.resolve_k(height, width, *share)).macs / 1e9

    def gmacs_of(self, row: Row, lr: np.ndarray, k: int | None) -> float:
        """The same for an LR image, uint8 (h, w, 3), which may decide what is run, with ``k`` cells refined."""
        network, costs = self.model.model, self.costs
        if isinstance(costs, ClassCosts) and isinstance(network, ClassNetwork):
            return costs.of_image(network, to_tensor(lr, self.model.device)).macs / 1e9
        return costs.cost(row.variant, lr.shape[1], lr.shape[0], k).macs / 1e9

    def masks(self, key: str, images: list[np.ndarray]) -> list[MaskPair]:
        if key not in self._masks:
            self._masks[key] = [predict(self.model, lr) for lr in images]
        return self._masks[key]

    def photographer(self, row: Row) -> MaskGuidedSR:
        """The model that runs photographs as the row says."""
        if self._photographer is None or self._photographer[0] != row:
            amount: Record = {"k": row.k, "fraction": row.fraction}
            if row.variant != "masked":
                instead: dict[str, Record] = {"base": {"k": 0}, "all": {"fraction": 1.0}}
                amount = instead.get(row.variant, {"mode": "dense"})
            self._photographer = row, self._load(**amount)
        return self._photographer[1]

    def photograph_seconds(self, row: Row, width: int, height: int) -> float:
        """Median time of a photograph of this LR size, in the way in which the model runs it."""
        model = self.photographer(row)
        image = photograph(width, height)
        return median_time(lambda: model.upscale(image))


class Bicubic:
    """The runner of the bicubic row."""

    fingerprint, device = "bicubic", torch.device("cpu")

    def __init__(self, scale: int):
        self.scale = scale

    def upscale(self, row: Row, lr: np.ndarray) -> np.ndarray:
        return imresize(lr, self.scale)

    def luma(self, lr: np.ndarray) -> None:
        return None

    def photograph_seconds(self, row: Row, width: int, height: int) -> float:
        image = photograph(width, height)
        return median_time(lambda: imresize(image, self.scale))


def median_time(run: Callable[[], object]) -> float:
    """Seconds of a call, the first of which is not counted."""
    run()
    times = []
    for _ in range(PHOTOGRAPHS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _own_code(network: torch.nn.Module) -> list[Path]:
    """Files that define modules of the network, but those of PyTorch and of this package."""
    names = {type(module).__module__ for module in network.modules()}
    others = {name for name in names if name.partition(".")[0] not in ("torch", "mga_kernels")}
    files = (getattr(sys.modules.get(name), "__file__", None) for name in others)
    return sorted(Path(file) for file in files if file is not None)


def file_name(row: Row) -> str | None:
    return None if row.file is None else Path(row.file).name
