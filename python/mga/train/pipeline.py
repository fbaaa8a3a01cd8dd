"""From a configuration to a weights file: load the Base-Net, train the Refine-Net, train the mask, save."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from mga_kernels.checkpoints import load_model, read_state_dict, save_model
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork

from .config import TrainConfig
from .features import FeatureCache, training_files
from .loop import claim_folder
from .mask import train_mask
from .refine import train_refine

STEPS = ("refine", "mask")


def build_network(config: TrainConfig) -> MaskGuidedNetwork:
    """The network with the published weights in its Base-Net, on the device it trains on."""
    if config.network != "rfdn":
        raise InputError(f"train: training of {config.network} is not there yet; config.network must be rfdn")
    torch.manual_seed(config.seed)
    network = MaskGuidedNetwork(config.model_config())
    blocks, refine_blocks = network.config.split
    if refine_blocks > blocks:
        raise InputError(
            f"train: config.split = {config.split!r} gives the Refine-Net more blocks than the Base-Net, but it starts "
            "as a copy of the last ones of these; choose another split"
        )
    try:
        network.base.load_state_dict(read_state_dict(config.base))
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else error
        raise CheckpointError(
            f"train: {config.base} is not the Base-Net of {config.network} x{config.scale} with {blocks} blocks: "
            f"{detail}"
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


def _facts(network: MaskGuidedNetwork, with_mask: bool) -> dict[str, Any]:
    """What weights of the Refine-Net, and of the MP module where it is asked for, must have in common to be taken."""
    config, mask = network.config, network.mask
    facts: dict[str, Any] = {name: getattr(config, name) for name in ("network", "scale", "split")}
    if with_mask:
        facts |= {"patch_size": config.patch_size, "classes": mask.conv2.out_channels}
        facts |= {"order": mask.order, "filter_source": mask.filter_source}
    return facts


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
    model = json.loads(network.config.to_json())
    facts = {name: value for name, value in model.items() if name not in ("k", "selection")}
    claim_folder(out / "model.json", facts, "train", "change config.out or remove that folder")
    initial = load_model(config.initial) if config.initial else None
    if initial is None and "refine" not in steps:
        raise InputError(
            "train: without the step refine, config.initial must name the weights to take the Refine-Net from"
        )
    if initial is not None:
        wanted, found = (_facts(model, with_mask="mask" not in steps) for model in (network, initial))
        for name, value in wanted.items():
            if found[name] != value:
                raise CheckpointError(f"train: {config.initial} has {name} = {found[name]}, the configuration {value}")
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
