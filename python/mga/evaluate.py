"""``mga evaluate``: PSNR-Y and SSIM-Y of a model on a folder of HR images.

The protocol is that of ``mga.metrics``. Without LR images they are made from the HR images by MATLAB's bicubic, the HR
images being cropped to a multiple of the scale first. The authors of the mask-guided scheme evaluated with K = 240 on
the small test sets (Set5, Set14, B100); the default here is the model's own K.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mga_kernels.errors import ImageError, InputError
from mga_kernels.files import whole_file
from mga_kernels.images import Photo, check_output, read_image, save_image

from .folders import list_images
from .metrics import psnr_y, ssim_y
from .resize import shrink_for_scale

if TYPE_CHECKING:
    from mga_kernels.engine import MaskGuidedSR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of HR images")
    parser.add_argument(
        "--lr", type=Path, metavar="DIR", help="folder of LR images, NAMExS.png or NAME.png for NAME.png of --hr"
    )
    parser.add_argument("--scale", type=int, required=True, help="scale of the model and of the LR images")
    parser.add_argument("--variant", default="masked", choices=("base", "decomposed", "all", "masked"))
    parser.add_argument(
        "--selection", choices=("largest", "smallest", "random"), help="which cells are refined (default: the model's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --selection random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the SR images there, as PNG")


def run(args: argparse.Namespace) -> int:
    """The command: evaluate, print a table, write the JSON file."""
    from .models import load, variant_of

    pairs = find_pairs(args.hr, args.lr, args.scale)
    for hr, _ in pairs if args.save else ():
        check_output(
            args.save / f"{hr.stem}.png", overwrite=True, inputs=[path for pair in pairs for path in pair if path]
        )
    if args.json is not None and not args.json.parent.is_dir():
        raise InputError(f"evaluate: {args.json} cannot be written, its folder does not exist")
    model = load(args, runtime="pytorch")  # images go through it as tensors, so nothing else is prepared
    if model.scale != args.scale:
        raise InputError(f"evaluate: the model {args.model} is for x{model.scale}, not for --scale {args.scale}")
    console = Console(highlight=False)
    result = {"model": str(args.model)} | evaluate(
        model,
        track(pairs, "evaluating", console=Console(stderr=True), transient=True, disable=not console.is_terminal),
        variant_of(model, args.variant),
        args.selection,
        args.seed,
        args.save,
    )
    if args.json is not None:
        with whole_file(args.json) as stream:
            stream.write((json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    console.print(_table(result))
    return 0


def find_pairs(hr_folder: Path, lr_folder: Path | None, scale: int) -> list[tuple[Path, Path | None]]:
    """HR files, each with its LR file (None where the LR image is to be made)."""
    hr_files, _ = list_images(hr_folder)
    if not hr_files:
        raise ImageError(f"evaluate: there is no image in {hr_folder}")
    stems: dict[str, Path] = {}
    for path in hr_files:
        if path.stem in stems:
            raise ImageError(f"evaluate: {stems[path.stem]} and {path} have the same name; remove one")
        stems[path.stem] = path
    if lr_folder is None:
        return [(path, None) for path in hr_files]
    lr_files: dict[str, Path] = {path.stem: path for path in list_images(lr_folder)[0]}
    partners = [lr_files.get(f"{path.stem}x{scale}", lr_files.get(path.stem)) for path in hr_files]
    missing = [path.name for path, partner in zip(hr_files, partners, strict=True) if partner is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ImageError(f"evaluate: {lr_folder} holds no LR image of {', '.join(missing[:3])}{more}")
    return list(zip(hr_files, partners, strict=True))


def load_pair(hr_path: Path, lr_path: Path | None, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """(hr, lr) as uint8 (H, W, 3), HR cropped to a multiple of the scale. Grey images become three equal channels."""
    hr = read_image(hr_path).rgb
    if min(hr.shape[:2]) < scale:
        raise ImageError(f"evaluate: {hr_path} ({hr.shape[1]}x{hr.shape[0]}) is too small for x{scale}")
    if lr_path is None:
        return shrink_for_scale(hr, scale)
    lr = read_image(lr_path).rgb
    height, width = (side // scale for side in hr.shape[:2])
    if lr.shape[:2] != (height, width):
        raise ImageError(
            f"evaluate: {lr_path} is {lr.shape[1]}x{lr.shape[0]}, but {hr_path} ({hr.shape[1]}x{hr.shape[0]}) "
            f"at x{scale} needs {width}x{height}; was it made for another scale?"
        )
    return hr[: height * scale, : width * scale], lr


def evaluate(
    model: MaskGuidedSR,
    pairs: Iterable[tuple[Path, Path | None]],
    variant: str = "masked",
    selection: str | None = None,
    seed: int = 0,
    save: Path | None = None,
) -> dict[str, Any]:
    """Figures of every image and their mean, as they go into the JSON file. A PSNR of equal images is None there."""
    from mga_kernels.pictures import to_tensor, to_uint8

    from .models import own_luma

    images = []
    for hr_path, lr_path in pairs:
        hr, lr = load_pair(hr_path, lr_path, model.scale)
        sr = to_uint8(model(to_tensor(lr), variant=variant, selection=selection, seed=seed)[0])
        plane = own_luma(model, lr)
        compared = sr if plane is None else plane
        psnr = psnr_y(compared, hr, model.scale)
        entry = {"name": hr_path.stem, "psnr_y": psnr, "ssim_y": ssim_y(compared, hr, model.scale)}
        if variant == "masked":
            entry["k"] = model.resolve_k(*lr.shape[:2])
        images.append(entry)
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            save_image(Photo(sr), save / f"{hr_path.stem}.png", overwrite=True)
    mean = {key: float(np.mean([entry[key] for entry in images])) for key in ("psnr_y", "ssim_y")}
    masked = variant == "masked"
    return {
        "variant": variant,
        "scale": model.scale,
        "k": (model.config.k if model.k is None else model.k) if masked and model.fraction is None else None,
        "fraction": model.fraction if masked else None,
        "selection": (selection or model.config.selection) if masked else None,
        "seed": seed if masked and selection == "random" else None,
        "network": model.network,
        "dtype": str(model.dtype).removeprefix("torch."),
        "mean": _finite(mean),
        "images": [_finite(entry) for entry in images],
    }


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity, which is the PSNR of equal images."""
    return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in entry.items()}


def _table(result: dict[str, Any]) -> Table:
    share = f"K = {result['k']}" if result["k"] is not None else f"fraction {result['fraction']}"
    how = f", {share}, {result['selection']}" if result["variant"] == "masked" else ""
    table = Table(title=f"{result['model']} x{result['scale']} {result['variant']}{how}")
    table.add_column("image")
    table.add_column("PSNR-Y (dB)", justify="right")
    table.add_column("SSIM-Y", justify="right")
    for entry in [*result["images"], {"name": "mean"} | result["mean"]]:
        psnr = "equal" if entry["psnr_y"] is None else f"{entry['psnr_y']:.3f}"
        if entry["name"] == "mean" and entry is not result["images"][-1]:
            table.add_section()
        table.add_row(entry["name"], psnr, f"{entry['ssim_y']:.4f}")
    return table
