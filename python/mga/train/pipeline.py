"""From a configuration to a weights file: load the Base-Net, train the Refine-Net, train the mask, save."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from mga_kernels.checkpoints import load_model, read_state_dict, save_model
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

from .config import TrainConfig
from .features import FeatureCache, training_files
from .mask import train_mask
from .refine import train_refine

STEPS = ("refine", "mask")


def build_network(config: TrainConfig) -> MaskGuidedNetwork:
    """The network with the published weights in its Base-Net, on the device it trains on."""
    if config.network != "rfdn":
        raise InputError(f"train: training of {config.network} is not there yet; config.network must be rfdn")
    torch.manual_seed(config.seed)
    mask = {"classes": config.mask.classes, "order": config.mask.order, "filter_source": config.mask.filter_source}
    network = MaskGuidedNetwork(ModelConfig(config.network, config.scale, config.patch_size, mask=mask))
    try:
        network.base.load_state_dict(read_state_dict(config.base))
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else error
        raise CheckpointError(
            f"train: {config.base} is not the Base-Net of {config.network} x{config.scale}: {detail}"
        ) from None
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def training_facts(config: TrainConfig, results: dict[str, str]) -> dict[str, Any]:
    """What the weights file says about how it was made. File names only: where they lay is nobody's business."""
    settings = dataclasses.asdict(config)
    for name in ("out", "device", "save_every", "licence", "folders"):
        del settings[name]
    settings["base"] = Path(config.base).name
    settings["initial"] = Path(config.initial).name
    return {
        "settings": settings,
        "images": {
            Path(folder.path).name: {
                "shrink": folder.shrink,
                "files": [file.name for file in training_files(folder, held_out=False)],
                "held_out": [file.name for file in training_files(folder, held_out=True)],
            }
            for folder in config.folders
        },
        "results": results,
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "torch": torch.__version__,
    }


def train(config: TrainConfig, steps: tuple[str, ...] = STEPS) -> Path:
    """Run the steps and write ``out/NETWORK-xSCALE.safetensors``; a run that was stopped goes on where it was.

    Without "refine" among the steps, the Refine-Net (and without "mask", the MP module) is that of ``initial``.
    """
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"train: the folder {out} cannot be made: {error}; change config.out") from None
    network = build_network(config)
    initial = load_model(config.initial) if config.initial else None
    if initial is None and "refine" not in steps:
        raise InputError(
            "train: without the step refine, config.initial must name the weights to take the Refine-Net from"
        )
    if initial is not None:
        if initial.config.network != config.network or initial.config.scale != config.scale:
            raise CheckpointError(f"train: {config.initial} is not a {config.network} x{config.scale}")
        network.refine.load_state_dict(initial.refine.state_dict())
        if "mask" not in steps:
            network.mask.load_state_dict(initial.mask.state_dict())
    value_range = network.config.value_range
    train_cache = FeatureCache(config, network.base, value_range)
    held_out = FeatureCache(config, network.base, value_range, held_out=True)
    results = {}
    if "refine" in steps:
        start = initial.refine.state_dict() if initial is not None else None
        results["refine"] = train_refine(
            config, network.base, network.refine, value_range, train_cache, held_out, start
        )
    if "mask" in steps:
        results["mask"] = train_mask(config, network, train_cache, held_out)
    target = out / f"{config.network}-x{config.scale}.safetensors"
    save_model(target, network, config.licence, training_facts(config, results))
    return target
