"""What each step of the paper's training minimises (section 3.5)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.mask import MaskPrediction

from ..evaluation.masks import differences, every_patch


def l1(image: Tensor, hr: Tensor) -> Tensor:
    return (image.float() - hr).abs().mean()


def both_images(network: MaskGuidedNetwork, lr: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    """Coarse and final image (B, 3, sH, sW), not clamped, of "dense" (-D), "all" (-A) or "base" (-B, twice)."""
    coarse, feature = network.coarse(lr)
    if variant == "base":
        return coarse, coarse
    return coarse, network.decomposed(feature) if variant == "dense" else every_patch(network, feature)


def image_loss(
    network: MaskGuidedNetwork,
    lr: Tensor,
    hr: Tensor,
    variant: str,
    coarse_weight: float,
    coarse_hr: Tensor | None = None,
) -> Tensor:
    """Steps 1 ("dense": -D) and 2 ("all": -A), and -B alone ("base").

    The coarse image has a loss too: without it nothing would train the Base-Net's upsampler, which -D does not use. It
    is compared with ``coarse_hr``, by default ``hr``.
    """
    coarse, final = both_images(network, lr, variant)
    coarse_loss = l1(coarse, hr if coarse_hr is None else coarse_hr)
    return coarse_loss if variant == "base" else l1(final, hr) + coarse_weight * coarse_loss


def mask_loss(network: MaskGuidedNetwork, lr: Tensor, unit: float, spread: Tensor) -> Tensor:
    """Step 3: the mask against |coarse - all|, with ``unit`` as 1; ``spread`` (1, C, 1, 1) is taken off the feature."""
    with torch.no_grad():
        coarse, feature = network.coarse(lr)
        target = (differences(network, coarse, every_patch(network, feature)) / unit).clamp(max=1)
    return (network.mask(feature / spread) - target).abs().mean()


@torch.no_grad()
def feature_statistics(network: MaskGuidedNetwork, batches: Iterable[Tensor], quantile: float) -> tuple[Tensor, float]:
    """Standard deviation (1, C, 1, 1) of the feature's channels, and the difference that is mask value 1."""
    values, cells = [], []
    for lr in batches:
        coarse, feature = network.coarse(lr)
        values.append(feature.double().transpose(0, 1).flatten(1)[:, ::17])
        cells.append(differences(network, coarse, every_patch(network, feature)).flatten())
    spread = torch.cat(values, dim=1).std(dim=1).clamp(min=1e-6).float().reshape(1, -1, 1, 1)
    return spread, max(float(torch.cat(cells).quantile(quantile)), 1e-6)


@torch.no_grad()
def fold_spread(mask: MaskPrediction, spread: Tensor) -> None:
    """What was taken off the feature goes into the weights."""
    mask.conv1.weight.div_(spread[:, : mask.channels])


def gated_loss(network: MaskGuidedNetwork, lr: Tensor, hr: Tensor, coarse_weight: float, spread: Tensor) -> Tensor:
    """The other strategies of Table 4: the loss is that of -M, with the paper's share of the cells refined.

    A selection has no gradient. The mask gets that of the image in which each refined patch is blended into the coarse
    one by its mask value (straight-through estimator): a value grows with the gain of refining its cell, in the cells
    that were not selected too. The paper does not say how it trains the mask without supervision.
    """
    coarse, feature = network.coarse(lr)
    mask = network.mask(feature / spread)
    chosen = torch.zeros_like(mask).flatten(1)
    count = max(1, round(SELECTED_SHARE * chosen.shape[1]))
    chosen.scatter_(1, mask.flatten(1).topk(count).indices, 1.0)
    side = network.config.scale * network.config.patch_size
    weight = chosen.view_as(mask) + (mask - mask.detach())
    weight = weight.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    final = coarse + weight * (every_patch(network, feature) - coarse)
    return l1(final, hr) + coarse_weight * l1(coarse, hr)


SELECTED_SHARE = 0.4  # of the cells of a crop; K = 1000 at p = 4 is 2 to 60 % of an image from Test4K to Set14
