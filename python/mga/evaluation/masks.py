"""How well the mask tells what refining would change (section 4.4, Figure 6): l1 error and overlap with the true top K.

The truth of a cell is what step 3 of the training takes for it: the mean absolute luma
difference of the coarse image and that of -A, divided by the unit of the training set and cut at 1. Weights keep the
unit of their training ("mask_unit"); for those without it, it is the quantile that training uses, of the cells of the
set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.layers import pad_by_reflection

from ..files.records import Record
from .metrics import LUMA

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

QUANTILE = (
    0.95  # the mean cell difference at this quantile of the training cells is mask value 1, where nothing else is said
)


@dataclass(frozen=True)
class MaskPair:
    """Of one image: ``mask`` as predicted and ``difference``, 1 being white, both float32 (Hp, Wp)."""

    mask: np.ndarray
    difference: np.ndarray

    def target(self, unit: float) -> np.ndarray:
        return np.minimum(self.difference / unit, 1)


def every_patch(network: MaskGuidedNetwork, feature: Tensor) -> Tensor:
    """The image (B, 3, sH, sW) of -A, not clamped: the Refine-Net over all patches, side by side."""
    batch, _, height, width = feature.shape
    p = network.config.patch_size
    patches = network.refined(feature, network.every_cell(feature))
    return fold(patches, batch, height // p, width // p)


def fold(patches: Tensor, batch: int, rows: int, columns: int) -> Tensor:
    """(B * rows * columns, C, q, q) -> (B, C, rows q, columns q)."""
    channels, q = patches.shape[1:3]
    cells = patches.reshape(batch, rows, columns, channels, q, q)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * q, columns * q)


def luma_cells(difference: Tensor, cell: int) -> Tensor:
    """Mean absolute BT.601 luma of an RGB difference (B, 3, H, W) in each cell of ``cell`` x ``cell`` pixels."""
    weights = torch.tensor(LUMA, dtype=difference.dtype, device=difference.device)
    luma = torch.einsum("bchw,c->bhw", difference, weights).abs()
    return torch.nn.functional.avg_pool2d(luma[:, None], cell)[:, 0]


def differences(network: MaskGuidedNetwork, coarse: Tensor, final: Tensor) -> Tensor:
    """Mean absolute luma difference (B, Hp, Wp) of the coarse and the final image in each cell, in 0..1 of white."""
    return luma_cells((final - coarse).float(), network.config.scale * network.config.patch_size)


@torch.inference_mode()
def predict(model: MaskGuidedSR, lr: np.ndarray) -> MaskPair:
    """The mask of an LR image, uint8 (h, w, 3), and the difference that it predicts; runs the Refine-Net everywhere."""
    from mga_kernels.engine.pictures import to_tensor

    network, smallest = model.model, model.config.definition.minimum_size
    if not isinstance(network, MaskGuidedNetwork):
        what = (
            "is a whole network, which has none"
            if network.pair is None
            else "has regions by a mask that is not learned"
        )
        raise InputError(f"mask: {model.network} {what}; name a mask-guided model")
    image = to_tensor(lr).to(model.device, model.dtype)
    image = pad_by_reflection(image, *(max(side, smallest) for side in image.shape[-2:]))
    coarse, feature = network.coarse(image.contiguous(memory_format=torch.channels_last))
    difference = differences(network, coarse, every_patch(network, feature))
    return MaskPair(*(t[0].float().cpu().numpy() for t in (network.mask(feature), difference)))


def unit_of(pairs: Sequence[MaskPair], training: Record) -> tuple[float, str]:
    """The difference that is mask value 1, and where it is from: "training" or "set"."""
    if "mask_unit" in training:
        return float(training["mask_unit"]), "training"
    quantile = training.get("settings", {}).get("target_quantile", QUANTILE)
    cells = np.concatenate([pair.difference.ravel() for pair in pairs])
    return max(float(np.quantile(cells, quantile)), 1e-6), "set"


def mask_l1(pairs: Sequence[MaskPair], unit: float) -> float:
    """Mean absolute error of the mask, the mean over the cells of each image first."""
    return float(np.mean([np.abs(pair.mask - pair.target(unit)).mean() for pair in pairs]))


def top_overlap(pairs: Sequence[MaskPair], counts: Sequence[int]) -> tuple[float, float]:
    """Share of the K selected cells that are among the K with the largest difference, and that of a random selection.

    ``counts`` has K of each image; images with K = 0 are left out, and without any the result is nan.
    """
    found, chance = [], []
    for pair, k in zip(pairs, counts, strict=True):
        k = min(k, pair.mask.size)
        if k:
            found.append(overlap(pair.mask, pair.difference, k))
            chance.append(k / pair.mask.size)
    return (float(np.mean(found)), float(np.mean(chance))) if found else (float("nan"), float("nan"))


def overlap(mask: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of the ``k`` largest values of one that are where those of the other are."""
    selected, worst = (set(largest(values, k)) for values in (mask, truth))
    return len(selected & worst) / k


def largest(values: np.ndarray, k: int) -> list[int]:
    """The cells that ``select_patches`` takes: ties go to the lower index."""
    return np.argsort(-values.ravel(), kind="stable")[:k].tolist()


def mask_figures(pairs: Sequence[MaskPair], counts: Sequence[int], training: Record) -> Record:
    """l1 error, overlap and what they refer to, as they go into the JSON file."""
    unit, source = unit_of(pairs, training)
    found, chance = top_overlap(pairs, counts)
    known = found == found
    return {
        "l1": mask_l1(pairs, unit),
        "unit": unit,
        "unit_from": source,
        "overlap": found if known else None,
        "overlap_by_chance": chance if known else None,
    }
