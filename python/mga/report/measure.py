"""What the report compares: pictures, PSNR, operations and seconds of an original network and of -M at several K."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import read_image
from mga_kernels.networks import Config
from mga_kernels.networks.interface import padded_size
from mga_kernels.runtimes import RUNTIMES

from ..complexity.counting import costs_of
from ..evaluation.metrics import psnr_rgb, psnr_y
from ..evaluation.testsets import find_pairs, load_pair
from ..files.folders import list_images, spread

MOST_IMAGES = 12
RUNS = 3  # turns of each K and the original with an image, after one to warm up
LONGEST = 2.0  # seconds after which no turn more is begun: where runs are long, chance has less of them
NEAR_HR, NEAR_ORIGINAL = 0.02, 0.1  # dB, see ``suggest``


@dataclass(frozen=True)
class Sample:
    """One of the user's images: its name, ``lr`` and ``hr``, uint8 (h, w, 3) and (s h, s w, 3)."""

    name: str
    lr: np.ndarray
    hr: np.ndarray | None = None


@dataclass(frozen=True)
class Psnr:
    """PSNR in dB of luma and of RGB of 8-bit pictures, without a border as wide as the scale; inf where equal."""

    luma: float
    rgb: float


@dataclass(frozen=True)
class Figures:
    """One image in one run: seconds from bytes to bytes, GMACs, PSNR against the original and against HR if given."""

    seconds: float
    gmacs: float
    original: Psnr
    hr: Psnr | None


@dataclass(frozen=True)
class Run:
    """All images in one way: the original (``k`` None), or -M with at most ``k`` cells an image."""

    k: int | None
    runtime: str
    figures: tuple[Figures, ...]

    @property
    def seconds(self) -> float:
        return statistics.fmean(one.seconds for one in self.figures)

    @property
    def gmacs(self) -> float:
        return statistics.fmean(one.gmacs for one in self.figures)

    @property
    def against_original(self) -> Psnr:
        return mean_psnr([one.original for one in self.figures])

    @property
    def against_hr(self) -> Psnr | None:
        found = [one.hr for one in self.figures if one.hr is not None]
        return mean_psnr(found) if found else None

    @property
    def quality(self) -> float:
        """What the curve shows: mean PSNR of luma, against HR where it is given and else against the original."""
        return (self.against_hr or self.against_original).luma


@dataclass(frozen=True)
class Comparison:
    """``pictures``: those of the original. ``runs``: -M by ascending K. ``slower``: other
    runtimes of the original and how many times as long they take. ``cells`` of each image.
    """

    samples: tuple[Sample, ...]
    pictures: tuple[np.ndarray, ...]
    original: Run
    slower: tuple[tuple[str, float], ...]
    runs: tuple[Run, ...]
    cells: tuple[int, ...]
    left_out: int

    @property
    def suggested(self) -> Run:
        return suggest(self.runs)

    @property
    def has_hr(self) -> bool:
        return self.original.against_hr is not None


def mean_psnr(values: Sequence[Psnr]) -> Psnr:
    """Mean of the dB, as the field reports it; inf where an image is equal."""
    return Psnr(*(statistics.fmean(pair) for pair in zip(*((v.luma, v.rgb) for v in values), strict=True)))


def suggest(runs: Sequence[Run]) -> Run:
    """The smallest K whose mean luma PSNR is near the best of all K.

    Near is 0.02 dB where the PSNR is against HR, a difference that nobody sees, and 0.1 dB where it is against the
    original: two pictures that agree to 40 dB or more differ by less than either does from the truth, so that the same
    tenth there is far less.
    """
    near = NEAR_ORIGINAL if runs[0].against_hr is None else NEAR_HR
    best = max(run.quality for run in runs)
    found = [run for run in runs if run.quality >= best - near]
    return min(found, key=lambda run: run.k or 0)


def gather(images: Path | None, hr: Path | None, scale: int, most: int = MOST_IMAGES) -> tuple[list[Sample], int]:
    """Up to ``most`` images, evenly from the folder by name, and how many were left out.

    ``images`` are LR images. With ``hr`` they are paired by name (``mga.evaluation.testsets``); with ``hr`` alone
    the LR images are made by MATLAB's bicubic.
    """
    if hr is not None:
        pairs = find_pairs(hr, images, scale)
        chosen = spread(pairs, most)
        samples = []
        for hr_path, lr_path in chosen:
            truth, lr = load_pair(hr_path, lr_path, scale)
            samples.append(Sample((lr_path or hr_path).name, lr, truth))
        return samples, len(pairs) - len(chosen)
    if images is None:
        raise InputError("report: there is nothing to compare on; name a folder of images, of HR images or both")
    files, _ = list_images(images)
    if not files:
        raise ImageError(f"report: there is no image in {images}")
    kept = spread(files, most)
    return [Sample(path.name, read_image(path).rgb) for path in kept], len(files) - len(kept)


def steps_of_k(cells: int) -> list[int]:
    """0, 250, 500, 1000 and so on, doubled up to all ``cells``; quarters where an image has few."""
    if cells < 1000:
        return sorted({0, cells // 4, cells // 2, cells})
    steps = [0, 250]
    while 2 * steps[-1] < 0.75 * cells:
        steps.append(2 * steps[-1])
    return [*steps, cells]


def compare(
    load_model: Callable[..., MaskGuidedSR],
    load_original: Callable[..., MaskGuidedSR],
    samples: Sequence[Sample],
    left_out: int = 0,
    ks: Sequence[int] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure everything. The two load a model with settings of ``MaskGuidedSR``, ``k`` or ``runtime``, given here.

    The original counts in the fastest runtime that the engine has for it. Every K takes turns with it, and its seconds
    are those of the original, over all turns, times the median ratio of its own turns: so a machine that slows down
    meanwhile changes no comparison. Only one K is held at a time, as large images leave no room for the buffers of all.
    From the second K on ``say`` is told how long the rest will take.
    """
    original, slower = _fastest(load_original, samples[0].lr, say)
    pictures = tuple(np.array(original.upscale(sample.lr)) for sample in samples)
    model = load_model(k=0)
    cells = tuple(math.prod(model.grid(*sample.lr.shape[:2])) for sample in samples)
    wanted = sorted({min(k, max(cells)) for k in ks}) if ks else steps_of_k(max(cells))
    taken: list[list[float]] = [[] for _ in samples]  # by the original
    measured = []
    started = time.perf_counter()
    for number, k in enumerate(wanted, 1):
        left = (time.perf_counter() - started) / max(number - 1, 1) * (len(wanted) - number + 1)
        say(f"K = {k:,}, {number} of {len(wanted)}{f', about {_shown(left)} left' if number > 1 else ''}")
        model = load_model(k=k)
        turns = [_turns(model, original, sample.lr, times) for sample, times in zip(samples, taken, strict=True)]
        measured.append((k, str(model.info()["photographs"]), turns))
    seconds = [statistics.median(times) for times in taken]
    gmacs = _costs(original.config)
    scale = original.scale
    reference = tuple(
        _figures(picture, picture, sample, own, gmacs(sample.lr, None), scale)
        for picture, sample, own in zip(pictures, samples, seconds, strict=True)
    )
    gmacs = _costs(model.config)
    runs = []
    for k, runtime, turns in measured:
        rows = zip(turns, pictures, samples, seconds, strict=True)
        figures = [
            _figures(picture, other, sample, ratio * own, gmacs(sample.lr, k), scale)
            for (picture, ratio), other, sample, own in rows
        ]
        runs.append(Run(k, runtime, tuple(figures)))
    first = Run(None, str(original.info()["photographs"]), reference)
    return Comparison(tuple(samples), pictures, first, slower, tuple(runs), cells, left_out)


def _fastest(
    load: Callable[..., MaskGuidedSR], lr: np.ndarray, say: Callable[[str], None]
) -> tuple[MaskGuidedSR, tuple[tuple[str, float], ...]]:
    """The original in the runtime that is fastest for this image, and how many times as long the others take."""
    found: list[tuple[float, str]] = []
    best, refused = None, InputError("report: no runtime can run the original")
    for runtime in RUNTIMES:
        say(f"the original in {RUNTIMES[runtime]}")
        try:
            model = load(runtime=runtime)
        except InputError as error:
            refused = error
            continue
        model.upscale(lr)
        taken = [_seconds(model, lr) for _ in _times()]
        found.append((statistics.median(taken), str(model.info()["photographs"])))
        if min(found) == found[-1]:
            best = model
    if best is None:
        raise refused
    (shortest, _), *others = sorted(found)
    return best, tuple((name, seconds / shortest) for seconds, name in others)


def _turns(model: MaskGuidedSR, original: MaskGuidedSR, lr: np.ndarray, taken: list[float]) -> tuple[np.ndarray, float]:
    """The picture of ``model``, and how many times as long as the original it takes, whose seconds go to ``taken``.

    Both have run with an image of this size just before, so that they are warm: few plans are kept at a time.
    """
    picture = np.array(model.upscale(lr))
    original.upscale(lr)
    ratios = []
    for _ in _times():
        taken.append(_seconds(original, lr))
        ratios.append(_seconds(model, lr) / taken[-1])
    return picture, statistics.median(ratios)


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _times() -> Iterator[int]:
    """Numbers of turns: one at least, RUNS at most, as many as are begun within LONGEST."""
    started = time.perf_counter()
    for number in range(RUNS):
        if number and time.perf_counter() - started >= LONGEST:
            return
        yield number


def _seconds(model: MaskGuidedSR, lr: np.ndarray) -> float:
    started = time.perf_counter()
    model.upscale(lr)
    return time.perf_counter() - started


def _figures(
    picture: np.ndarray, original: np.ndarray, sample: Sample, seconds: float, gmacs: float, border: int
) -> Figures:
    truth = None if sample.hr is None else psnr(picture, sample.hr, border)
    return Figures(seconds, gmacs, psnr(picture, original, border), truth)


def psnr(picture: np.ndarray, other: np.ndarray, border: int) -> Psnr:
    """Between two uint8 pictures; the border is left where nothing would remain without it."""
    if picture is other:
        return Psnr(math.inf, math.inf)
    border = border if min(picture.shape[:2]) > 2 * border else 0
    return Psnr(psnr_y(picture, other, border), psnr_rgb(picture, other, border))


def _costs(config: Config) -> Callable[[np.ndarray, int | None], float]:
    """GMACs of an LR image, extended to whole cells and to the least size as the engine does."""
    counter = costs_of(config)

    def gmacs(lr: np.ndarray, k: int | None) -> float:
        height, width = padded_size(config, *lr.shape[:2])
        return counter.cost("masked" if config.masked else "whole", width, height, k).macs / 1e9

    return gmacs


def machine() -> str:
    """Processor (or GPU), threads and operating system, for people."""
    from mga_kernels.engine import timings

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = timings.machine(device)
    name = facts.get("device") or facts["processor"]
    return f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} logical CPUs"
