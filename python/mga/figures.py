"""``mga figures HR... -o DIR``: for each photograph NAME-error.png, NAME-crops.png and NAME-mask.png.

They are the paper's Figures 2, 5 and 6 for one model: the error map between coarse and final image with its histogram;
HR, bicubic, -B, -D, -A and -M side by side on one place; the true and the predicted mask with its l1 error.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mga_kernels.checkpoints import is_whole, read_metadata
from mga_kernels.checkpoints.native import is_native
from mga_kernels.engine import MaskGuidedSR
from mga_kernels.errors import ImageError, InputError
from mga_kernels.files import identities, writable_folder
from mga_kernels.images import Photo, check_output, save_image
from mga_kernels.pictures import to_tensor, to_uint8

from .metrics import psnr_y, ssim_y
from .models import load
from .overlay import most_refined
from .resize import imresize
from .sheets import Box, crops_sheet, error_sheet, mask_sheet
from .suite.mask import MaskPair, predict, unit_of
from .testsets import find_pairs, image_name, load_pair, only_scale

VARIANTS = {"-B": "base", "-D": "decomposed", "-A": "all", "-M": "masked"}
KINDS = ("error", "crops", "mask")


def _box(text: str) -> Box:
    found = re.fullmatch(r"(\d{1,6}),(\d{1,6}),([1-9]\d{0,5})", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"a box is LEFT,TOP,SIDE in HR pixels, got {text!r}")
    return int(found[1]), int(found[2]), int(found[3])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="HR", help="HR images, or one folder of them")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--lr", type=Path, metavar="DIR", help="LR images; default: made by MATLAB's bicubic")
    parser.add_argument("--box", type=_box, metavar="X,Y,SIDE", help="place of the crops (default: most refined)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="default: all three")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that exist")


def run(args: argparse.Namespace) -> int:
    if is_whole(args.model):
        raise InputError(
            f"figures: {args.model} is a whole network, of which there is neither a coarse image nor a mask to show; "
            "name a mask-guided model"
        )
    model = load(args, only_scale(args.images[0], args.lr), runtime="pytorch")
    training = read_metadata(args.model)["training"] if is_native(args.model) else {}
    pairs = _pairs(args.images, args.lr, model.scale)
    inputs = identities(path for pair in pairs for path in pair if path)
    targets = {
        pair: {kind: args.output / f"{image_name(pair[0], model.scale)}-{kind}.png" for kind in args.kinds}
        for pair in pairs
    }
    writable_folder(args.output)
    for path in (path for kinds in targets.values() for path in kinds.values()):
        check_output(path, overwrite=args.overwrite, inputs=inputs)
    for pair, kinds in targets.items():
        hr, lr = load_pair(*pair, model.scale)
        for kind, picture in draw(model, hr, lr, tuple(kinds), args.box, training).items():
            save_image(Photo(np.asarray(picture)), kinds[kind], overwrite=args.overwrite)
            print(f"written: {kinds[kind]}", flush=True)
    return 0


def draw(
    model: MaskGuidedSR, hr: np.ndarray, lr: np.ndarray, kinds: tuple[str, ...], box: Box | None, training: dict
) -> dict[str, Image.Image]:
    """The pictures of one image by kind; ``training`` are the facts in the weights file, for the unit of the mask."""
    wanted = {"error": ("-B", "-A"), "crops": tuple(VARIANTS)}
    needed = dict.fromkeys(name for kind in kinds for name in wanted.get(kind, ()))
    images = {name: to_uint8(model(to_tensor(lr), VARIANTS[name])[0]) for name in needed}
    result = {}
    if "error" in kinds:
        result["error"] = error_sheet(lr, images["-B"], images["-A"])
    pair = predict(model, lr) if {"crops", "mask"} & set(kinds) else None
    if "crops" in kinds and pair is not None:
        shown = {"bicubic": imresize(lr, model.scale)} | {name: images[name] for name in VARIANTS}
        named = {
            f"{name}\n{psnr_y(image, hr, model.scale):.2f} dB / {ssim_y(image, hr, model.scale):.4f}": image
            for name, image in shown.items()
        }
        result["crops"] = crops_sheet(hr, named, box or place(model, pair, hr.shape[:2]))
    if "mask" in kinds and pair is not None:
        unit, _ = unit_of([pair], training)
        result["mask"] = mask_sheet(lr, hr, pair.target(unit), pair.mask, model.patch_size)
    return result


def place(model: MaskGuidedSR, pair: MaskPair, size: tuple[int, int]) -> Box:
    """The square of about a sixth of the image's shorter side in which most is refined."""
    cell = model.patch_size * model.scale
    rows, columns = (side // cell for side in size)
    inside = pair.mask[:rows, :columns]
    window = max(1, round(min(rows, columns) / 6))
    k = min(model.resolve_k(*(side // model.scale for side in size)), inside.size)
    chosen = np.argsort(-inside.ravel(), kind="stable")[: max(1, k)]
    found = most_refined(inside, np.sort(chosen), window, 1)
    row, column = found[0] if found else (0, 0)
    return column * cell, row * cell, window * cell


def _pairs(images: list[Path], lr: Path | None, scale: int) -> list[tuple[Path, Path | None]]:
    if len(images) == 1 and images[0].is_dir():
        return find_pairs(images[0], lr, scale)
    for path in images:
        if not path.is_file():
            raise ImageError(f"figures: there is no image {path}")
    if lr is None:
        return [(path, None) for path in images]
    wanted = {path.resolve() for path in images}
    pairs = [pair for folder in dict.fromkeys(p.parent for p in images) for pair in find_pairs(folder, lr, scale)]
    found = [pair for pair in pairs if pair[0].resolve() in wanted]
    if len(found) < len(wanted):
        raise InputError(f"figures: {len(wanted) - len(found)} of the files are no images")
    return found
