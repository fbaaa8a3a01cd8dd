"""What a split brings of a network, and what it takes: the curve over the share of the cells, and whether it pays."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import MaskGuidedNetwork, WholeNetwork

from ..evaluation.metrics import luma, psnr_of
from ..files.records import Record
from .curve import LEAST, PAYS, QUALITIES, Point, as_text, best_of

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


class SplitCurve:
    """Of ``network``, halves of ``teacher``, on LR images that were not trained on; both in what is fastest here.

    Unlike regions, whose picture is the published network's where all cells are refined, halves that were trained
    have moved: a split pays where some share of the cells is as near as the quality "high", in less time.
    """

    def __init__(self, network: MaskGuidedNetwork, teacher: WholeNetwork, images: list[np.ndarray]):
        whole = MaskGuidedSR(teacher, device="cpu")
        ways = [MaskGuidedSR(network, device="cpu", fraction=share) for share in SHARES]
        wanted = [np.asarray(whole.upscale(lr)) for lr in images]
        largest = max(images, key=lambda image: image.size)
        seconds, *spent = best_of([partial(one.upscale, largest) for one in (whole, *ways)])
        self.points = [
            Point(share, math.nan, _db(way, images, wanted), its / seconds)
            for share, way, its in zip(SHARES, ways, spent, strict=True)
        ]
        fitting = [p for p in self.points if p.db >= QUALITIES["high"] and p.time is not None and p.time <= PAYS]
        self.best = min(fitting, key=lambda p: p.share, default=None)

    @property
    def pays(self) -> bool:
        return self.best is not None

    def report(self) -> str:
        return as_text(self.points, "of the published network's", self.best)

    def facts(self) -> Record:
        """What the file says of it."""
        return {"curve": [{"share": p.share, "db": p.db, "time": p.time} for p in self.points], "pays": self.pays}


def _db(model: MaskGuidedSR, images: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Mean over images of the PSNR of luma."""
    errors = [
        float(np.square(luma(np.asarray(model.upscale(lr))) - luma(whole)).mean())
        for lr, whole in zip(images, wanted, strict=True)
    ]
    return sum(psnr_of(error, LEAST) for error in errors) / len(errors)
