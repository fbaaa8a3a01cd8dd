"""One model on one folder of images: figures of every image and their mean."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mga_kernels.images import Photo, save_image
from mga_kernels.networks.amount import Amount

from ..files.records import Record, finite
from .metrics import psnr_y, ssim_y
from .testsets import load_pair

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR


def evaluate(
    model: MaskGuidedSR,
    pairs: Iterable[tuple[Path, Path | None]],
    variant: str = "masked",
    selection: str | None = None,
    seed: int = 0,
    save: Path | None = None,
) -> Record:
    """Figures of every image and their mean, as they go into the JSON file. A PSNR of equal images is None there."""
    from mga_kernels.engine.pictures import to_tensor, to_uint8

    from ..evaluation.models import own_luma, refined

    images = []
    for hr_path, lr_path in pairs:
        hr, lr = load_pair(hr_path, lr_path, model.scale)
        sr = to_uint8(model(to_tensor(lr), variant=variant, selection=selection, seed=seed)[0])
        plane = own_luma(model, lr)
        compared = sr if plane is None else plane
        psnr = psnr_y(compared, hr, model.scale)
        entry = {"name": hr_path.stem, "psnr_y": psnr, "ssim_y": ssim_y(compared, hr, model.scale)}
        if variant == "masked":
            entry["k"] = refined(model, lr)
        images.append(entry)
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            save_image(Photo(sr), save / f"{hr_path.stem}.png", overwrite=True)
    mean = {key: float(np.mean([entry[key] for entry in images])) for key in ("psnr_y", "ssim_y")}
    masked = variant == "masked"
    amount = (model.amount or Amount(k=model.config.k)) if masked else Amount()
    return {
        "variant": variant,
        "scale": model.scale,
        "k": amount.k,
        "fraction": amount.fraction,
        "threshold": amount.threshold,
        "selection": (selection or model.config.selection) if masked else None,
        "seed": seed if masked and selection == "random" else None,
        "network": model.network,
        "dtype": str(model.dtype).removeprefix("torch."),
        "mean": finite(mean),
        "images": [finite(entry) for entry in images],
    }
