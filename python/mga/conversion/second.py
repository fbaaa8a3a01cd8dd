"""Two published networks of which a refined cell is the mean: ``mga convert A --extend B``.

Networks that are about equally good err differently, so the mean of their pictures is nearer to the truth than either.
Nothing is trained. A is the Base-Net; B runs over regions, and on HR images it is measured what a share of the cells
brings and takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, save_model, shipped_models
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, RegionConfig, RegionNetwork, SRNetwork, WholeConfig, WholeNetwork
from mga_kernels.networks.detail import detail

from ..evaluation.metrics import psnr_y
from ..evaluation.resize import shrink_for_scale
from ..files.records import Record
from ..training.packs import Pair
from .black_box import Notes, side_for
from .curve import SHARES, Measuring, Point, large
from .distilling import CELL
from .pictures import middles
from .teacher import check_refinable

if TYPE_CHECKING:
    from .convert import Request

IMAGES = 8  # that are measured
QUALITIES = {"high": 0.9, "fast": 0.5}  # of what refining all cells gains
USUAL = 0.3  # of the cells, for which the halo is chosen
PAYS = 0.02  # dB that the mean of both must be above the better one


def named(text: str) -> Path | None:
    """The network that ``--extend`` names, a shipped model or a file; None for a number of blocks."""
    found = shipped_models().get(text, Path(text))
    return found if found.is_file() else None


def whole_of(loaded: SRNetwork) -> SRNetwork:
    """The Base-Net of a mask-guided network of the paper, which is a whole one; others as they are."""
    if not isinstance(loaded, MaskGuidedNetwork) or loaded.config.definition.layout is not None:
        return loaded
    config = loaded.config
    found = WholeConfig(
        config.network, config.scale, config.split[0], dict(config.base), input_range=config.definition.input_range
    )
    network = WholeNetwork(found)
    network.body.load_state_dict(loaded.base.state_dict())
    return network.eval().requires_grad_(False)


def pair_of(first: Path, second: Path, patch_size: int, input_range: str | None = None) -> RegionNetwork:
    """``input_range``: of the first, where its file does not tell. InputError for two that do not go together."""
    base, refine = whole_of(load_checkpoint(first, input_range=input_range)), whole_of(load_checkpoint(second))
    refine = check_refinable(refine, str(second))
    if not isinstance(base, WholeNetwork) or base.config.colour != "rgb" or base.config.original is not None:
        raise InputError(f"convert: {first} is no whole network of RGB of ours, which the mean of two needs")
    if base.config.scale != refine.config.scale:
        raise InputError(
            f"convert: {first} is of x{base.config.scale} and {second} of x{refine.config.scale}; "
            "give two networks of one scale"
        )
    network = RegionNetwork(RegionConfig(base.config, refine.config, patch_size, mean=True))
    network.base.load_state_dict(base.state_dict())
    network.refine.load_state_dict(refine.state_dict())
    return network.eval().requires_grad_(False)


class Second(Measuring):
    """``network`` on ``pairs`` (HR, LR). A point's ``db`` is what PSNR-Y gains on the Base-Net's picture.

    ``alone``: PSNR-Y of Base-Net, Refine-Net and the mean of both everywhere.
    """

    def __init__(self, network: RegionNetwork, pairs: Sequence[Pair]):
        super().__init__(network, network.base, [lr for _, lr in pairs], "auto")
        self.whole = MaskGuidedSR(network, mode="dense")
        self.hr = [hr for hr, _ in pairs]
        self.alone: tuple[float, ...] = ()

    def measure(self) -> None:
        models = MaskGuidedSR(self.network.base), MaskGuidedSR(self.network.refine), self.whole
        pictures = [self._pictures(model) for model in models]
        self.alone = tuple(self._psnr(made) for made in pictures)
        coarse, _, both = pictures
        side = self.network.config.patch_size * self.network.config.scale
        masks = [detail(torch.from_numpy(picture)[None], side, True)[0] for picture in coarse]
        values = torch.cat([mask.flatten() for mask in masks]).sort(descending=True).values

        def point(share: float) -> Point:
            last = max(0, min(round(share * len(values)), len(values)) - 1)
            threshold = -1.0 if share == 1 else float(values[last : last + 2].mean())
            return Point(share, threshold, self._psnr(_pasted(coarse, both, masks, threshold, side)) - self.alone[0])

        self._try_halos(both, masks, point(USUAL).threshold, side)
        gain = point(1.0).db
        self.pays = self.alone[2] >= max(self.alone[:2]) + PAYS
        chosen = {name: self._enough(point, part * gain) for name, part in QUALITIES.items()} if gain > 0 else {}
        config = replace(
            self.network.config,
            qualities={name: found.threshold for name, found in chosen.items()},
            quality="high" if chosen else "",
        )
        points = {p.share: p for p in (*map(point, (*SHARES, 1.0)), *chosen.values())}
        self.points = self._timed([points[share] for share in sorted(points)], config)

    def _enough(self, point: Callable[[float], Point], gain: float) -> Point:
        """With the fewest cells, in steps of a hundredth, that gain so much."""
        return next((p for p in map(point, (i / 100 for i in range(1, 100))) if p.db >= gain), point(1.0))

    def _psnr(self, pictures: Sequence[np.ndarray]) -> float:
        scale = self.network.config.scale
        found = [psnr_y(made, hr, scale) for made, hr in zip(pictures, self.hr, strict=True)]
        return sum(found) / len(found)

    def report(self) -> str:
        first, second = (part.config.network for part in self.network.pair)
        alone = zip((first, second, "the mean of both"), self.alone, strict=True)
        what = f"of {first}'s, with a halo of {self.network.config.halo} pixels"
        lines = [
            ", ".join(f"{name} {db:.3f} dB" for name, db in alone),
            f"{'share':>6} {'gain':>7} {'time':>6}   {what}",
        ]
        lines += [f"{p.share:6.2f} {p.db:+7.3f} {p.time or math.nan:6.2f}" for p in self.points]
        return "\n".join(
            [*lines, "it pays" if self.pays else f"it does not pay: one of the two alone is as good to {PAYS:g} dB"]
        )

    def facts(self) -> Record:
        return super().facts() | {"way": "mean of two", "psnr": list(self.alone), "qualities": QUALITIES}


def _pasted(
    coarse: Sequence[np.ndarray],
    both: Sequence[np.ndarray],
    masks: Sequence[Tensor],
    threshold: float,
    side: int,
) -> list[np.ndarray]:
    """``coarse`` with the cells of ``both`` whose mask is larger."""
    return [
        np.where(large(mask > threshold, side, made.shape)[..., None], wanted, made)
        for made, wanted, mask in zip(coarse, both, masks, strict=True)
    ]


def with_second(asked: Request, second: Path, notes: Notes) -> bool:
    """Measure and write the file; whether it pays. ``notes(facts)`` gives its licence and facts."""
    network = pair_of(asked.checkpoint, second, asked.patch_size or CELL, asked.input_range)
    scale = network.config.scale
    print(f"{network.base.config.network} and {network.config.network} x{scale}, the mean of both", flush=True)
    side = side_for(network.base, asked.minutes / 2)
    work = Second(network, [shrink_for_scale(hr, scale) for hr in middles(asked.images, IMAGES, side * scale)])
    work.measure()
    print(work.report())
    exact = [name for name, t in network.state_dict().items() if torch.equal(t.half().float(), t)]
    save_model(asked.output, network, *notes(work.facts() | {"second": second.name}), half=exact)
    return work.pays
