"""What ``MaskGuidedSR.explain`` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pictures import Picture


@dataclass(frozen=True)
class Explanation:
    """What happened to one image.

    ``coarse`` and ``image`` are of the kind that ``upscale`` returns. ``mask`` float32 (Hp, Wp) and ``indices`` int32
    (K,), raster order: cell i covers p x p LR pixels from row i // Wp * p and column i % Wp * p, with p =
    ``patch_size``. ``timings`` are seconds by stage.
    """

    coarse: Picture
    mask: np.ndarray
    indices: np.ndarray
    image: Picture
    patch_size: int
    scale: int
    timings: dict[str, float]
