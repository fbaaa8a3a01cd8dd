"""Rows of figures: measured one after the other, kept in a file as they come (``mga.evaluation.suite.store``)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from mga_kernels.checkpoints import is_whole
from mga_kernels.engine.timings import machine
from mga_kernels.networks import ClassConfig, ModelConfig, RegionConfig, WholeConfig
from mga_kernels.networks.amount import Amount

from ...files.records import Record, finite
from ...settings.values import amount
from ..masks import mask_figures
from ..metrics import psnr_rgb, psnr_y, ssim_y
from ..testsets import ImageSet, image_name, load_pair
from .config import Suite, lr_size
from .runners import Bicubic, Row, Runner, file_name
from .store import SETTINGS, Store

METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "psnr_rgb": psnr_rgb,
}
LUMA_METRICS = ("psnr_y", "ssim_y")
AMOUNT = ("variant", "k", "fraction", "selection", "seed")  # of a row, what the file of figures repeats
CACHE_BYTES = 768 * 2**20  # of decoded images, which every row needs again


class Pictures:
    """The (hr, lr) images of sets; those that fit into CACHE_BYTES are decoded, and shrunk, once."""

    def __init__(self, scale: int):
        self.scale, self._bytes = scale, 0
        self._kept: dict[tuple[Path, Path | None], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, pair: tuple[Path, Path | None]) -> tuple[np.ndarray, np.ndarray]:
        if pair in self._kept:
            return self._kept[pair]
        images = load_pair(*pair, self.scale)
        size = sum(image.nbytes for image in images)
        if self._bytes + size <= CACHE_BYTES:
            self._kept[pair] = images
            self._bytes += size
        return images


def rows_of(suite: Suite) -> list[Row]:
    """The rows that a suite asks for; a whole network has one, whatever the variants are."""
    rows = [Row("bicubic", None, "base")] if suite.bicubic else []
    for model in suite.models:
        decided = partial(Row, colour=model.colour, input_range=model.input_range, model_scale=model.model_scale)
        for variant in ["whole"] if is_whole(model.file) else model.variants or suite.variants:
            row = partial(decided, model.name, model.file, variant)
            if variant != "masked":
                rows.append(row())
                continue
            for k, fraction in [amount(item) for item in suite.k] or [(None, None)]:
                orders: list[str | None] = [*suite.selections] or [None]
                rows += [row(k, fraction, order, suite.seed) for order in orders]
    return rows


def measure(
    rows: Sequence[Row], sets: Sequence[ImageSet], suite: Suite, path: Path | None = None, title: str = ""
) -> list[Record]:
    """Figures of every row. With ``path``, a JSON file, rows that it has of today's code are taken from there.

    ``title``: of the table, which the file keeps with the settings of the suite.
    """
    store = Store(path)
    settings = {name: getattr(suite, name) for name in SETTINGS} | ({"title": title} if title else {})
    fingerprints = [(one.name, one.fingerprint()) for one in sets]
    results: list[Record] = []
    pictures, runner, made_for = Pictures(suite.scale), None, None
    for number, row in enumerate(rows, 1):
        wanted = dataclasses.replace(row.entry(), name="")
        if runner is None or wanted != made_for:
            made_for = wanted
            choices = suite.scale, suite.device, suite.dtype, suite.images == "photographs"
            runner = Bicubic(suite.scale) if row.file is None else Runner(wanted, *choices)
        computer = machine(runner.device)
        computer.pop("code", None)  # a part of that of the store
        key = _key(row, suite, runner.fingerprint, fingerprints, computer)
        found = store.find(key)
        if found is None:
            print(f"{number}/{len(rows)} {describe(row)}", flush=True)
            found = {"key": key, "code": store.code, "machine": computer}
            found |= _figures(row, sets, suite, runner, pictures)
        results.append(found | {"model": row.label, "settings": settings})
        store.write(results)
    return results


def describe(row: Row) -> str:
    amount = "" if row.k is None else f" K = {row.k}"
    amount = amount if row.fraction is None else f" {100 * row.fraction:g} % of the cells"
    return f"{row.label} {row.variant if row.file else ''}{amount} {row.selection or ''}".strip()


def _figures(row: Row, sets: Sequence[ImageSet], suite: Suite, runner: Runner | Bicubic, pictures: Pictures) -> Record:
    width, height = lr_size(suite.size, suite.scale)
    figures = {one.name: _of_set(row, one, suite, runner, pictures) for one in sets}
    result: Record = {name: value for name, value in asdict(row).items() if name in AMOUNT}
    result |= {"file": file_name(row), "params": None, "gmacs": None, "sets": figures}
    if isinstance(runner, Runner):
        config = runner.model.config
        masked = row.variant == "masked"
        own = masked and row.k is row.fraction is None
        if isinstance(config, WholeConfig):
            result |= {name: getattr(config, name) for name in ("network", "blocks", "colour", "input_range")}
        else:
            result |= {"network": config.network, "split": _split(config)}
        result |= {
            "k": (runner.model.amount or Amount(k=config.k)).k if own else row.k,
            "selection": (row.selection or config.selection) if masked else None,
        }
        result |= {"params": runner.costs.parameters(row.variant), "gmacs": runner.gmacs(row, width, height)}
        result |= {"dtype": str(runner.model.dtype).removeprefix("torch."), "device": str(runner.model.device)}
        if runner.photographs:
            result["run"] = runner.photographer(row).info()["photographs"]
    if suite.seconds == "photographs":
        result["seconds"] = runner.photograph_seconds(row, width, height)
    else:
        count = sum(len(one.pairs) for one in sets)
        result["seconds"] = sum(f["seconds"] * len(f["images"]) for f in figures.values()) / count
    return result


def _split(config: ModelConfig | RegionConfig | ClassConfig) -> str:
    """How a network is divided, in a word."""
    if isinstance(config, ModelConfig):
        return "+".join(map(str, config.split))
    return "regions" if isinstance(config, RegionConfig) else "classes"


def _of_set(row: Row, one: ImageSet, suite: Suite, runner: Runner | Bicubic, pictures: Pictures) -> Record:
    """Means over the images of a set, and the images."""
    images, lrs, seconds = [], [], 0.0
    for pair in one.pairs:
        hr, lr = pictures(pair)
        lrs.append(lr)
        started = time.perf_counter()
        sr = runner.upscale(row, lr)  # bytes on the host, so nothing is under way any more
        seconds += time.perf_counter() - started
        entry: Record = {"name": image_name(pair[0], suite.scale)}
        luma = runner.luma(lr)
        made = {name: sr if luma is None or name not in LUMA_METRICS else luma for name in METRICS}
        entry |= {name: metric(made[name], hr, suite.scale) for name, metric in METRICS.items()}
        images.append(entry)
    result: Record = {name: float(np.mean([entry[name] for entry in images])) for name in METRICS}
    result |= {"seconds": seconds / len(images), "lr": "given" if one.given_lr else "bicubic"}
    if isinstance(runner, Runner):
        refined = [runner.count(row, lr) for lr in lrs]
        result["gmacs"] = float(np.mean([runner.gmacs_of(row, lr, k) for lr, k in zip(lrs, refined, strict=True)]))
        if counts := [k for k in refined if k is not None]:
            result["mean_k"] = float(np.mean(counts))
            learned = not isinstance(runner.model.config, RegionConfig)
            if suite.mask and learned and (row.selection or runner.model.config.selection) == "largest":
                pairs = runner.masks(one.name, lrs)
                result["mask"] = mask_figures(pairs, counts, runner.training)
    return finite(result) | {"images": [finite(entry) for entry in images]}


def _key(row: Row, suite: Suite, model: str, sets: Sequence[tuple[str, str]], computer: Record) -> str:
    """Stands for all that the figures of a row depend on, but the code, which the row has beside it."""
    facts = asdict(row) | {"label": "", "file": "", "model": model, "sets": sets, "machine": computer}
    facts |= {name: getattr(suite, name) for name in ("scale", "mask", "size", "seconds", "images", "device", "dtype")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
