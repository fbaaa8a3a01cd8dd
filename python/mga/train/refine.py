"""Step 2 (section 3.5): the Refine-Net learns to restore HR patches from cropped feature patches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .config import TrainConfig
from .features import CellSampler, FeatureCache
from .identity import start_at_identity, trunk_parameters
from .loop import Ema, run_steps

VALIDATION_CELLS = 4096
LEAST_FACTOR = 0.1  # of the correction is kept in any case: without one the mask has nothing to be trained on


def _validator(refine: nn.Module, ema: Ema, held_out: FeatureCache, value_range: float) -> Callable[[], str]:
    """PSNR (RGB, dB) on a fixed sample of held-out cells, of the coarse image and of the refined patches."""
    sampler = CellSampler(held_out, hard_share=0.0, seed=0)
    cells = sampler.draw(VALIDATION_CELLS)
    coarse = -10 * math.log10(sampler.coarse_mse(cells))
    features, targets = sampler.fetch(cells)

    @torch.no_grad()
    def validate() -> str:
        averaged = ema.averaged(refine)
        total = 0.0
        for feature, target in zip(features.split(512), targets.split(512), strict=True):
            output = averaged(feature.to(held_out.device)) / value_range
            total += float((output - target.to(held_out.device)).square().mean()) * len(feature)
        return f"held-out coarse {coarse:.4f} dB, refined {-10 * math.log10(total / len(features)):.4f} dB"

    return validate


@torch.no_grad()
def _shrink(refine: nn.Module, held_out: FeatureCache, value_range: float) -> str:
    """Scale the correction that the Refine-Net makes by the factor in LEAST_FACTOR..1 that is best for held-out images.

    What there is to learn beyond the Base-Net is small, and a part of what was learned is noise of the training images;
    least squares on images that were not trained on tells how large the part is. Returns a line about it.
    """
    sampler = CellSampler(held_out, hard_share=0.0, seed=0)
    product = energy = 0.0
    for cells in np.array_split(np.arange(sampler.starts[-1]), max(1, sampler.starts[-1] // 512)):
        features, targets = (tensor.to(held_out.device) for tensor in sampler.fetch(cells))
        coarse = refine.tail(features) / value_range
        correction = refine(features) / value_range - coarse
        product += float((correction * (targets - coarse)).double().sum())
        energy += float(correction.double().square().sum())
    best = product / energy if energy > 0 else 1.0
    factor = min(1.0, max(LEAST_FACTOR, best))
    refine.LR_conv.weight.mul_(factor)
    refine.LR_conv.bias.mul_(factor)
    return f"correction scaled by {factor:.2f} (best for them: {best:.2f})"


def train_refine(
    config: TrainConfig,
    base: nn.Module,
    refine: nn.Module,
    value_range: float,
    train: FeatureCache,
    held_out: FeatureCache,
    initial: dict[str, Tensor] | None,
) -> str:
    """Train ``refine`` in place; returns a line about the held-out images."""
    settings = config.refine
    refine.train()
    start_at_identity(base, refine, train.largest_features().to(train.device))
    if initial is not None:
        refine.load_state_dict(initial)
    for parameter in trunk_parameters(refine):
        parameter.requires_grad_(True)
    ema = Ema(refine, settings.ema_decay)
    sampler = CellSampler(train, settings.hard_share, config.seed)
    device = train.device

    def step_loss(_: int) -> Tensor:
        cells = sampler.draw(settings.cells_per_batch)
        features, targets = sampler.fetch(cells)
        features = features.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            trunk = refine.trunk(features)
        difference = refine.tail(trunk.float()) / value_range - targets.to(device)
        errors = (difference.abs() if settings.loss == "l1" else difference.square()).mean(dim=(1, 2, 3))
        return (errors * sampler.weights(cells).to(device)).mean()

    refine.to(memory_format=torch.channels_last)
    state = Path(config.out) / "refine.state"
    validate = _validator(refine, ema, held_out, value_range)
    run_steps("refine", refine, settings, state, config.save_every, sampler.rng, step_loss, validate, ema)
    ema.copy_to(refine)
    summary = f"{validate()}, {_shrink(refine, held_out, value_range)}"
    refine.eval().requires_grad_(False)
    return summary
