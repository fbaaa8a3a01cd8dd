"""What ``MaskGuidedSR.explain`` returns, and the steps that it takes for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runtimes import Plan
from .pictures import Picture


@dataclass(frozen=True)
class Explanation:
    """What happened to one image.

    ``coarse`` and ``image`` are of the kind that ``upscale`` returns. ``mask`` float32 (Hp, Wp): what the cells were
    chosen by, the error that the network's mask predicts or the detail of the coarse image (``Settings.mask``).
    ``indices`` int32 (K,), raster order: cell i covers p x p LR pixels from row i // Wp * p and column i % Wp * p, with
    p = ``patch_size``. ``timings``: seconds of "read", "base", "mask", "refine" and "write". ``refined``: cells
    refined, None where the dense network made it.
    """

    coarse: Picture
    mask: np.ndarray
    indices: np.ndarray
    image: Picture
    patch_size: int
    scale: int
    timings: dict[str, float]
    refined: int | None


class Timings:
    """``seconds`` by stage, on a GPU with what the stage has queued there."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] = time.perf_counter() - started


def steps(
    plan: Plan, dense: bool, rgb: Tensor, timings: Timings
) -> tuple[tuple[Tensor, Tensor], np.ndarray, np.ndarray]:
    """Coarse and final image of (H, W, 3), mask and indices, made in steps whose times are taken."""
    with timings.of("base"):
        final = plan.buffer()
        plan.show(rgb, final)
    coarse = plan.crop(final).cpu().clone()
    with timings.of("mask"):
        mask, indices = plan.choose(plan.capacity)
    with timings.of("refine"):
        if dense:
            plan.decomposed(final)
            indices = torch.arange(mask.numel(), dtype=torch.int32)[None]
        elif indices.shape[1]:
            plan.refine(indices, final)
    return (coarse, plan.crop(final).cpu()), mask[0].float().cpu().numpy(), indices[indices >= 0].cpu().numpy()
