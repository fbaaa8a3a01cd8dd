"""Step 2 (section 3.5): the Refine-Net learns to restore HR patches from cropped feature patches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .features import CellSampler, FeatureCache
from .identity import fold_centre, start_at_identity
from .loop import Ema, run_steps

VALIDATION_CELLS = 4096


def _validator(refine: nn.Module, ema: Ema, held_out: FeatureCache, value_range: float) -> Callable[[], str]:
    """PSNR (RGB, dB) on a fixed sample of held-out cells, of the coarse image and of the refined patches."""
    sampler = CellSampler(held_out, hard_share=0.5, seed=0)
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


def _centred(state: dict[str, Tensor], centre: Tensor) -> dict[str, Tensor]:
    """The state of a Refine-Net with a plain ``conv2`` as one of the same function whose ``conv2`` is centred."""
    state = dict(state)
    weight, bias = state.pop("conv2.weight"), state.pop("conv2.bias")
    bias = bias + weight.sum(dim=(2, 3)) @ centre.flatten()
    return {**state, "conv2.conv.weight": weight, "conv2.conv.bias": bias, "conv2.centre": centre}


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
    refine.train().requires_grad_(True)
    start_at_identity(base, refine, train.feature_samples().to(train.device))
    if initial is not None:
        refine.load_state_dict(_centred(initial, refine.conv2.centre))
    ema = Ema(refine, settings.ema_decay)
    sampler = CellSampler(train, settings.hard_share, config.seed)
    device = train.device

    def step_loss() -> Tensor:
        features, targets = sampler.batch(settings.cells_per_batch)
        features = features.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            trunk = refine.trunk(features)
        difference = refine.tail(trunk.float()) / value_range - targets.to(device)
        return difference.abs().mean() if settings.loss == "l1" else difference.square().mean()

    refine.to(memory_format=torch.channels_last)
    state = Path(config.out) / "refine.state"
    validate = _validator(refine, ema, held_out, value_range)
    run_steps("refine", refine, settings, state, config.save_every, sampler.rng, step_loss, validate, ema)
    summary = validate()
    ema.copy_to(refine)
    fold_centre(refine)
    refine.eval().requires_grad_(False)
    return summary
