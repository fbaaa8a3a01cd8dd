"""``mga figures HR... -o DIR``: for each photograph NAME-error.png, NAME-crops.png and NAME-mask.png.

They are the paper's Figures 2, 5 and 6 for one model: the error map between coarse and final image with its histogram;
HR, bicubic, -B, -D, -A and -M side by side on one place; the true and the predicted mask with its l1 error. Of a model
that refines regions -D and -A are one, and there is no mask that was learned.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from mga_kernels.checkpoints import is_whole, read_metadata
from mga_kernels.checkpoints.native import is_native
from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import Photo, check_output, save_image
from mga_kernels.system.files import identities, writable_folder

from ..drawing.sheets import Box
from ..evaluation.testsets import find_pairs, image_name, load_pair, only_scale
from ..studies.figures import KINDS, draw, kinds_of
from .models import load
from .options import add_model_arguments


def _box(text: str) -> Box:
    found = re.fullmatch(r"(\d{1,6}),(\d{1,6}),([1-9]\d{0,5})", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"a box is LEFT,TOP,SIDE in HR pixels, got {text!r}")
    return int(found[1]), int(found[2]), int(found[3])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="HR", help="HR images, or one folder of them")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--lr", type=Path, metavar="DIR", help="LR images; default: made by MATLAB's bicubic")
    parser.add_argument("--box", type=_box, metavar="X,Y,SIDE", help="place of the crops (default: most refined)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all that there are")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that exist")


def run(args: argparse.Namespace) -> int:
    if is_whole(args.model):
        raise InputError(
            f"figures: {args.model} is a whole network, of which there is neither a coarse image nor a mask to show; "
            "name a mask-guided model"
        )
    model = load(args, expected_scale=only_scale(args.images[0], args.lr), runtime="pytorch")
    training = read_metadata(args.model)["training"] if is_native(args.model) else {}
    chosen = args.kinds or kinds_of(model)
    pairs = _pairs(args.images, args.lr, model.scale)
    inputs = identities(path for pair in pairs for path in pair if path)
    targets = {
        pair: {kind: args.output / f"{image_name(pair[0], model.scale)}-{kind}.png" for kind in chosen}
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
