"""The mask-guided network (Figure 3 of the paper): Base-Net, Mask Prediction module and Refine-Net put together.

The four variants of the paper are four ways of running the same halves:

    base        -B  the coarse image
    decomposed  -D  the Refine-Net over the whole feature
    all         -A  the Refine-Net over every patch
    masked      -M  the Refine-Net over the K patches with the largest mask values, pasted into the coarse image
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..ops import gather_patches, paste_patches_
from .amount import above
from .config import ModelConfig
from .interface import FILTER_REACH, MASK_REACH, USUAL, Cells, Halves, MaskedNetwork, Reach
from .layers import pad_by_reflection
from .mask import MaskPrediction
from .registry import Network

VARIANTS = ("base", "decomposed", "all", "masked")
PATCHES_PER_CALL = {"cpu": 512, "cuda": 16384}  # bounds the memory of -A; on a CPU larger batches leave the caches


class MaskGuidedNetwork(MaskedNetwork):
    """Images are (B, 3, H, W) in [0, 1], sides no less than the network's ``minimum_size``; results (B, 3, sH, sW).

    The Base-Net sees the image as it is. Where a side is no multiple of p, what it returns is extended by reflection
    to whole cells, Hp x Wp of them, and the result is cropped back.
    """

    config: ModelConfig
    variants = VARIANTS

    def __init__(self, config: ModelConfig):
        super().__init__()
        network = config.definition
        self.config = config
        try:
            self.base = network.base(config.scale, config.split[0], **config.base)
            self.mask = MaskPrediction(config.mask_channels, config.patch_size, **config.mask)
            assert network.refine is not None  # or it would have no configuration
            self.refine = network.refine(config.scale, config.split[1], **config.refine)
        except TypeError as error:
            raise InputError(f"model: {config.network} does not have this setting: {error}") from error
        if not hasattr(self.refine, "halo"):
            raise InputError(f"model: the Refine-Net of {config.network} has no attribute halo; set it to 0, 1, ...")
        self.halo = cast(int, self.refine.halo)
        self.value_range = config.value_range  # kept, because looking a network up cannot be traced by torch.compile

    @property
    def front(self) -> nn.Module:
        return self.base

    @property
    def mask_module(self) -> MaskPrediction:
        return self.mask

    @property
    def back(self) -> nn.Module:
        return self.refine

    @property
    def back_of_all(self) -> nn.Module | None:
        return OfAll(self.refine) if hasattr(self.refine, "whole") else None

    def trunk(self) -> nn.Module:
        trunk = copy.copy(self.base)
        object.__setattr__(trunk, "upsample", lambda feature: feature.new_zeros(()))
        return trunk

    @property
    def reach(self) -> Reach:
        return Reach.of(self.base, self.refine, max(MASK_REACH + FILTER_REACH * self.config.patch_size, self.halo))

    @property
    def staged(self) -> Network | None:
        return self.config.definition if self.config.definition.cpu else None

    def halves(self) -> Halves:
        exact = copy.deepcopy(self).float()
        return Halves(self.config, self.value_range, exact.base, exact.refine, exact.mask, self.halo)

    def coarse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse image in [0, 1], not clamped, and coarse feature (B, C, p Hp, p Wp), both extended to whole cells."""
        p, scale = self.config.patch_size, self.config.scale
        height, width = (-(-side // p) * p for side in image.shape[-2:])
        coarse, feature = self.base(image * self.value_range)
        coarse = pad_by_reflection(coarse / self.value_range, height * scale, width * scale)
        return coarse, pad_by_reflection(feature, height, width)

    def select(self, feature: Tensor, k: int, selection: str | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mask (B, H/p, W/p) and the indices (B, K) int32 of the selected cells."""
        return self.mask.select(feature, k, selection or self.config.selection, seed)

    def refined(self, feature: Tensor, indices: Tensor) -> Tensor:
        """HR patches (B*K, 3, sp, sp) in [0, 1], not clamped, of the cells at ``indices`` (B, K)."""
        return self.refine_patches(gather_patches(feature, indices, self.config.patch_size, self.halo))

    def refine_patches(self, patches: Tensor) -> Tensor:
        """Gathered patches (n, C, p + 2h, p + 2h) -> HR patches (n, 3, sp, sp) in [0, 1], not clamped."""
        limit = PATCHES_PER_CALL.get(patches.device.type, PATCHES_PER_CALL["cuda"])
        parts = [self.refine(part) for part in patches.split(limit)] if len(patches) else []
        if not parts:
            side = self.config.scale * self.config.patch_size
            return patches.new_zeros(0, 3, side, side)
        return torch.cat(parts) / self.value_range

    def _pasted(self, coarse: Tensor, feature: Tensor, indices: Tensor) -> Tensor:
        return paste_patches_(coarse, self.refined(feature, indices), indices)

    def every_cell(self, feature: Tensor) -> Tensor:
        """Indices (B, N) of all cells of the feature."""
        p = self.config.patch_size
        cells = (feature.shape[2] // p) * (feature.shape[3] // p)
        return torch.arange(cells, dtype=torch.int32, device=feature.device).repeat(feature.shape[0], 1)

    def decomposed(self, feature: Tensor) -> Tensor:
        """The Refine-Net over the whole feature, zeros around it as around a patch at the border of the image."""
        whole = self.back_of_all
        result = self.refine(F.pad(feature, (self.halo,) * 4)) if whole is None else whole(feature)
        return result / self.value_range

    def unclamped(self, image: Tensor, variant: str = "masked", cells: Cells = USUAL) -> Tensor:
        """What ``forward`` clamps, in which values that are not finite can be seen."""
        height, width = (side * self.config.scale for side in image.shape[-2:])
        result, feature = self.coarse(image)
        if variant == "decomposed":
            result = self.decomposed(feature)
        elif variant == "all":
            result = self._pasted(result, feature, self.every_cell(feature))
        elif variant == "masked":
            k = self.config.k if cells.k is None else cells.k
            mask, indices = self.select(feature, k, cells.selection, cells.seed)
            if cells.threshold is None:
                result = self._pasted(result, feature, indices)
            else:  # a number of cells of its own for each image
                images = (t.split(1) for t in (result, feature, mask, indices))
                result = torch.cat(
                    [self._pasted(r, f, above(m, i, cells.threshold)) for r, f, m, i in zip(*images, strict=True)]
                )
        elif variant != "base":
            raise InputError(f"variant {variant!r} does not exist; choose one of {VARIANTS}")
        return result[..., :height, :width]


class OfAll(nn.Module):
    """A Refine-Net by its method ``whole``."""

    def __init__(self, refine: nn.Module):
        super().__init__()
        self.refine = refine

    def forward(self, feature: Tensor) -> Tensor:
        return cast(Tensor, self.refine.whole(feature))  # type: ignore[operator]
