"""Step 3 (section 3.5): the MP module alone learns where the coarse image differs from that of the All-Net.

The target of a cell is the mean absolute difference of the two images on luma, divided by a constant of the training
set and cut at 1, so that the mask is a number in 0..1 that means the same on every image.

The features of some networks are large (RFDN works in 0..255). The module is trained on features divided by their
standard deviation, channel by channel, and the division is folded into its first convolution afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.mask import FILTER_SIZE, MaskPrediction

from .config import TrainConfig
from .features import CachedImage, FeatureCache, luma_cells
from .loop import Ema, run_steps

REFINED_SHARE = 0.4  # share of cells at which the validation compares the selected with the truly worst ones


@torch.no_grad()
def start_as_probability(mask: MaskPrediction) -> None:
    """The mask starts as the probability itself, and the probability near one half, where its slope is largest."""
    mask.conv_kernel.weight.zero_()
    mask.conv_kernel.bias.zero_()
    mask.conv_kernel.bias[FILTER_SIZE**2 // 2] = 1
    mask.conv2.weight.mul_(0.1)


def _feature(image: CachedImage, device: torch.device) -> Tensor:
    """(1, C, H, W) fp32 of a whole cached image."""
    return torch.from_numpy(image.feature[1:-1, 1:-1].astype(np.float32)).permute(2, 0, 1)[None].to(device)


@torch.inference_mode()
def _differences(network: MaskGuidedNetwork, cache: FeatureCache, what: str) -> list[Tensor]:
    """Mean absolute luma difference (Hp, Wp), in 0..1 of white, between coarse and refined image, for each image."""
    result = []
    side = network.config.scale * network.config.patch_size
    for image in track(cache.images, f"differences of the {what} images"):
        feature = _feature(image, cache.device)
        coarse = network.base.upsample(feature) / network.config.value_range
        patches = network.refined(feature, network.every_cell(feature))
        rows, columns = image.error.shape
        refined = patches.reshape(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(coarse.shape)
        result.append(luma_cells(refined - coarse, side)[0].cpu())
    return result


class CropSampler:
    """Crops of normalised features (N, C, c, c) and targets (N, c/p, c/p), from images drawn in proportion to area."""

    def __init__(self, cache: FeatureCache, targets: list[Tensor], std: Tensor, crop: int, seed: int):
        self.images, self.targets, self.std = cache.images, targets, std.reshape(-1, 1, 1)
        self.patch, self.crop = cache.config.patch_size, crop
        area = np.array([image.error.size for image in self.images], np.float64)
        self.share = area / area.sum()
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        p, cells = self.patch, self.crop // self.patch
        features, targets = [], []
        for number in self.rng.choice(len(self.images), count, p=self.share):
            image = self.images[number]
            y, x = (int(self.rng.integers(0, side - cells + 1)) for side in image.error.shape)
            part = image.feature[1 + y * p : 1 + y * p + self.crop, 1 + x * p : 1 + x * p + self.crop]
            features.append(torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1) / self.std)
            targets.append(self.targets[number][y : y + cells, x : x + cells])
        return torch.stack(features), torch.stack(targets)


def _validator(
    network: MaskGuidedNetwork, ema: Ema, held_out: FeatureCache, targets: list[Tensor], std: Tensor
) -> Callable[[], str]:
    """l1 error of the mask on the held-out images, and which share of the truly worst cells it selects."""
    features = [
        _feature(image, held_out.device) / std.reshape(1, -1, 1, 1).to(held_out.device) for image in held_out.images
    ]

    @torch.no_grad()
    def validate() -> str:
        averaged = ema.averaged(network.mask)
        errors, overlaps = [], []
        for feature, target in zip(features, targets, strict=True):
            mask = averaged(feature)[0].cpu()
            errors.append(float((mask - target).abs().mean()))
            k = round(REFINED_SHARE * target.numel())
            chosen, worst = (set(m.flatten().topk(k).indices.tolist()) for m in (mask, target))
            overlaps.append(len(chosen & worst) / k)
        return f"held-out l1 {np.mean(errors):.4f}, top {REFINED_SHARE:.0%} overlap {np.mean(overlaps):.3f}"

    return validate


def train_mask(config: TrainConfig, network: MaskGuidedNetwork, train: FeatureCache, held_out: FeatureCache) -> str:
    """Train ``network.mask`` in place, the rest frozen; returns the last validation line."""
    settings = config.mask
    train = train.first_views(settings.views)
    std = train.feature_samples().std(dim=0).float()
    differences = _differences(network, train, "training")
    unit = float(np.quantile(torch.cat([d.flatten() for d in differences]).numpy(), settings.target_quantile))
    targets = [(d / unit).clamp(max=1) for d in differences]
    held_out_targets = [(d / unit).clamp(max=1) for d in _differences(network, held_out, "held-out")]

    mask = network.mask.train().requires_grad_(True)
    start_as_probability(mask)
    ema = Ema(mask, settings.ema_decay)
    sampler = CropSampler(train, targets, std, settings.crop, config.seed)
    validate = _validator(network, ema, held_out, held_out_targets, std)

    def step_loss(_: int) -> Tensor:
        features, target = sampler.batch(settings.crops_per_batch)
        return (mask(features.to(train.device)) - target.to(train.device)).abs().mean()

    state = Path(config.out) / "mask.state"
    run_steps("mask", mask, settings, state, config.save_every, sampler.rng, step_loss, validate, ema)
    summary = validate()
    ema.copy_to(mask)
    with torch.no_grad():
        mask.conv1.weight.div_(std.to(mask.conv1.weight).reshape(1, -1, 1, 1))
    mask.eval().requires_grad_(False)
    return summary
