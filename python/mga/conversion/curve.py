"""What refining regions brings of a network, and what it takes: the curve, and whether it pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeNetwork
from mga_kernels.networks.detail import detail

from ..evaluation.metrics import luma, psnr_of
from ..files.records import Record

HALOS = (4, 8, 12, 16, 24, 32, 48)
AS_WHOLE = 50.0  # dB inside of regions against the whole picture, with which no larger halo is tried: at a third of the
# cells a tenth of what 45 dB leave
QUALITIES = {"high": 45.0, "fast": 40.0}  # dB of luma against the published network's pictures, the mean over images
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
PAYS = 0.9  # of the published network's time at most, at quality "high"
LEAST = 1e-5  # mean squared difference of pictures that are the same
REPEATS = 3  # of which the best time counts
LARGEST, SMALLEST = 320, 96  # LR pixels: sides of what is looked at of an image
RUNS = 50  # whole pictures that measuring takes about as long as


@dataclass(frozen=True)
class Point:
    """A share of cells refined: ``db`` to the published network, ``time`` as a part of its time, None if not taken."""

    share: float
    threshold: float
    db: float
    time: float | None = None


class Measuring:
    """``network`` refines regions by what ``teacher`` makes; measured on the images of ``held_out``, in ``runtime``.

    ``seconds``: what the published network takes of the processor for the largest of them, of ``size``. ``halos``: dB
    inside of regions by the halos that were tried.
    """

    def __init__(self, network: RegionNetwork, teacher: WholeNetwork, held_out: list[np.ndarray], runtime: str):
        self.network, self.teacher, self.held_out, self.runtime = network, teacher, held_out, runtime
        self.whole = MaskGuidedSR(teacher, runtime="auto")
        self.points: list[Point] = []
        self.halos: dict[int, float] = {}
        self.seconds = math.nan
        self.pays = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the image whose time is taken."""
        largest = max(self.held_out, key=lambda image: image.size)
        return largest.shape[0], largest.shape[1]

    def tried(self) -> Sequence[int]:
        """Halos, from the smallest on."""
        return HALOS

    def _measured(self) -> RegionConfig:
        coarse, whole = self._pictures(MaskGuidedSR(self.network.base)), self._pictures(self.whole)
        side = self.network.config.patch_size * self.network.config.scale
        masks = [detail(torch.from_numpy(picture)[None], side, True)[0] for picture in coarse]
        values = torch.cat([mask.flatten() for mask in masks]).sort(descending=True).values

        def point(share: float) -> Point:
            first = min(round(share * len(values)), len(values) - 1)  # that is not refined
            # In the middle to the last that is, so that what kernels round otherwise moves no cell across.
            threshold = float(values[max(first - 1, 0) : first + 1].mean()) if share < 1 else -1.0
            return Point(share, threshold, self._db(coarse, whole, masks, threshold, side))

        self._try_halos(whole, masks, point(0.3).threshold, side)
        config = self._fastest([(halo, self._share_for(point, QUALITIES["high"])) for halo in self._each_halo()])
        chosen = {name: self._share_for(point, wanted) for name, wanted in QUALITIES.items()}
        shares = sorted({0.0, *SHARES, *(share for share in chosen.values() if share < 1)})
        self.points = self._timed([point(share) for share in shares], config)
        qualities = {name: point(share).threshold for name, share in chosen.items()}
        at_high = next((p.time for p in self.points if p.share == chosen["high"]), None)
        self.pays = at_high is not None and at_high <= PAYS
        return replace(config, qualities=qualities, quality="high")

    def _pictures(self, model: MaskGuidedSR) -> list[np.ndarray]:
        return [np.asarray(model.upscale(lr)) for lr in self.held_out]

    def _db(
        self,
        coarse: Sequence[np.ndarray],
        whole: Sequence[np.ndarray],
        masks: Sequence[Tensor],
        threshold: float,
        side: int,
    ) -> float:
        """Mean over images of the PSNR of luma, of what is refined above a threshold."""
        found = []
        for made, wanted, mask in zip(coarse, whole, masks, strict=True):
            refined = large(mask > threshold, side, wanted.shape)
            error = np.square(luma(np.where(refined[..., None], wanted, made)) - luma(wanted)).mean()
            error += refined.mean() * self._left()
            found.append(psnr_of(float(error), LEAST))
        return sum(found) / len(found)

    def _left(self) -> float:
        """The mean square by which luma inside of regions is not that of the whole picture, with the halo chosen."""
        return 255**2 / 10 ** (self.halos[self.network.config.halo] / 10) if self.halos else 0.0

    def _share_for(self, point: Callable[[float], Point], wanted: float) -> float:
        """The smallest share, in steps of a hundredth, that is so near to the published network."""
        low, high = 0, 100
        while low < high:
            middle_of = (low + high) // 2
            low, high = (low, middle_of) if point(middle_of / 100).db >= wanted else (middle_of + 1, high)
        return low / 100

    def _try_halos(self, whole: Sequence[np.ndarray], masks: Sequence[Tensor], threshold: float, side: int) -> None:
        """From the smallest on, to the one with which regions are as in the whole picture."""
        self.halos = {}
        lr, wanted, mask = self.held_out[0], whole[0], masks[0]
        inside = large(mask > threshold, side, wanted.shape)
        for halo in self.tried():
            self.network.config = replace(self.network.config, halo=halo)
            made = np.asarray(MaskGuidedSR(self.network, runtime=self.runtime, threshold=threshold).upscale(lr))
            error = np.square(luma(made) - luma(wanted))[inside]
            self.halos[halo] = psnr_of(float(error.mean()) if error.size else 0.0, LEAST)
            if error.size and self.halos[halo] >= AS_WHOLE:
                break

    def _each_halo(self) -> Iterator[int]:
        """Those that were tried; the network has each until the next."""
        for halo in self.halos:
            self.network.config = replace(self.network.config, halo=halo)
            yield halo

    def _fastest(self, shares: Sequence[tuple[int, float]]) -> RegionConfig:
        """The configuration with the halo that takes least time; ``shares``: of the cells that are refined with each.

        With a small halo a region is less like the whole picture, and more of them are needed; what is around them is
        less.
        """
        lr, cells = self._largest()
        runs = []
        for halo, share in shares:
            self.network.config = replace(self.network.config, halo=halo)
            runs.append(self._at(lr, round(share * cells)))
            runs[-1]()  # a plan is made for the halo of its first image
        spent = best_of(runs) if len(runs) > 1 else [0.0]
        halo = shares[spent.index(min(spent))][0]
        self.network.config = config = replace(self.network.config, halo=halo)
        return config

    def _largest(self) -> tuple[np.ndarray, int]:
        """Of the images held out, and how many cells it has."""
        lr = max(self.held_out, key=lambda image: image.size)
        return lr, math.prod(MaskGuidedSR(self.network, runtime=self.runtime).grid(*lr.shape[:2]))

    def _timed(self, points: list[Point], config: RegionConfig) -> list[Point]:
        """On the largest image held out, beside the published network."""
        self.network.config = config
        lr, cells = self._largest()
        alone = MaskGuidedSR(self.teacher, runtime=self.runtime, device="cpu")
        self.seconds, *spent = best_of(
            [lambda: alone.upscale(lr), *(self._at(lr, round(p.share * cells)) for p in points)]
        )
        return [replace(p, time=its / self.seconds) for p, its in zip(points, spent, strict=True)]

    def _at(self, lr: np.ndarray, k: int) -> Callable[[], object]:
        run = MaskGuidedSR(self.network, runtime=self.runtime, k=k)
        return lambda: run.upscale(lr)

    def report(self) -> str:
        """The curve, and whether it pays."""
        config = self.network.config
        high = next((p for p in self.points if p.threshold == config.qualities["high"]), None)
        what = f"of the published network's, with a halo of {config.halo} pixels"
        return as_text(self.points, what, high if self.pays else None)

    def facts(self) -> Record:
        """What the file says of it."""
        return {"curve": [asdict(p) for p in self.points], "pays": self.pays, "qualities": QUALITIES}


def side_within(seconds: float, pace: float) -> int:
    """LR pixels a side of images with which measuring stays within so many seconds, if any do; ``pace``: the published
    network's seconds for a pixel."""
    return int(min(LARGEST, max(SMALLEST, (seconds / RUNS / pace) ** 0.5)))


def best_of(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of the processor, each the best of some runs, which take turns."""
    best = [math.inf] * len(runs)
    for repeat in range(REPEATS + 1):  # the first makes buffers
        for number, run in enumerate(runs):
            began = time.process_time()
            run()
            if repeat:
                best[number] = min(best[number], time.process_time() - began)
    return best


def as_text(points: Sequence[Point], what: str, best: Point | None) -> str:
    """The curve, whose time is a part of ``what``, and the verdict, by the point with which it pays."""
    lines = [f"{'share':>6} {'dB':>6} {'time':>6}   {what}"]
    lines += [f"{p.share:6.2f} {p.db:6.2f} {p.time or math.nan:6.2f}" for p in points]
    verdict = f"it does not pay: {QUALITIES['high']:g} dB take {PAYS:.0%} of the time or more"
    if best is not None:
        verdict = f"it pays: {best.db:.1f} dB to the published network in {best.time:.2f} of its time"
    return "\n".join([*lines, verdict])


def large(cells: Tensor, side: int, shape: tuple[int, ...]) -> np.ndarray:
    """bool (H, W): the pixels of cells."""
    return cells.numpy().repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]
