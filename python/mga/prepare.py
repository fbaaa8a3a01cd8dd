"""``mga prepare``: folders of images -> a training set in one file (see ``mga.train.packs``)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import read_image
from mga_kernels.networks.config import SCALES

from .folders import list_images
from .resize import imresize, shrink_for_scale


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="HR", help="folders of HR images (not their subfolders)"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="PACK", help="file to write (.safetensors)")
    parser.add_argument("--scale", required=True, type=int, choices=SCALES)
    parser.add_argument(
        "--lr",
        type=Path,
        metavar="DIR",
        help="LR images of the same names (or NAMExS); default: made by bicubic shrinking",
    )
    parser.add_argument("--tile", type=int, default=480, help="side of the sub-images (default 480, 0: whole images)")
    parser.add_argument("--step", type=int, default=0, help="from one sub-image to the next (default: --tile)")
    parser.add_argument(
        "--shrink", type=int, nargs="+", default=[1], metavar="N", help="use each image at 1/N of its size, for each N"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="keep every Nth sub-image")
    parser.add_argument(
        "--hardest",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="keep this share of the sub-images, those that bicubic interpolation restores worst; reads them twice",
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the last N images of each folder")
    parser.add_argument("--only", type=int, default=0, metavar="N", help="take only the last N images of each folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def run(args: argparse.Namespace) -> int:
    from .train.packs import write_pack

    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output} exists; give --overwrite to replace it")
    if not args.output.parent.is_dir():
        raise InputError(f"prepare: {args.output} cannot be written, its folder does not exist; create it first")
    for name in ("tile", "step"):
        if (side := getattr(args, name)) % args.scale or side < 0:
            raise InputError(f"prepare: --{name} {side} is not a multiple of the scale {args.scale}, 0 or more")
    if args.lr and args.shrink != [1]:
        raise InputError("prepare: --lr and --shrink exclude each other, since the LR images belong to the full size")
    for name, least in (("every", 1), ("skip", 0), ("only", 0), ("shrink", 1)):
        given = getattr(args, name)
        if (smallest := min(given) if name == "shrink" else given) < least:
            raise InputError(f"prepare: --{name} must be {least} or more, got {smallest}")
    if len(set(args.shrink)) < len(args.shrink):
        raise InputError("prepare: --shrink has a number twice; give each once")
    if not 0 < args.hardest <= 1:
        raise InputError(f"prepare: --hardest must be more than 0 and at most 1, got {args.hardest}")
    _check_names(args)
    pairs = sub_images(args)
    if args.hardest < 1:
        pairs = hardest(args, [bicubic_error(*pair) for _, pair in pairs])
    count = write_pack(args.output, pairs, args.scale)
    print(f"written: {args.output}, {count} pairs, {args.output.stat().st_size / 2**20:.1f} MiB")
    return 0


def _check_names(args: argparse.Namespace) -> None:
    """InputError, before anything is read, for images that the pack would have to call the same, or cannot name."""
    from .train.packs import check_name

    known: dict[str, Path] = {}
    for folder in args.folders:
        for file in files_of(folder, args.skip, args.only):
            name = f"{folder.name}/{file.stem}"
            if name in known:
                raise InputError(
                    f"prepare: {known[name]} and {file} would have the same name in the pack, {name}; rename one "
                    "of the files or folders, or make a pack of each, of which a training takes any number"
                )
            check_name(args.output, name)
            known[name] = file


def files_of(folder: Path, skip: int, only: int) -> list[Path]:
    files, _ = list_images(folder)
    if len(files) <= max(skip, only - 1, 0):
        raise ImageError(f"{folder} holds {len(files)} images, too few for --skip {skip} --only {only}")
    return files[len(files) - only :] if only else files[: len(files) - skip]


def sub_images(args: argparse.Namespace) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """(name, (hr, lr)) of every sub-image of every image at every size."""
    number = 0
    for folder in args.folders:
        for file in track(files_of(folder, args.skip, args.only), f"reading {folder.name}"):
            image = read_image(file).rgb
            for shrink in args.shrink:
                hr = image if shrink == 1 else imresize(image, 1 / shrink)
                if min(hr.shape[:2]) < args.scale:
                    size = f"{hr.shape[1]}x{hr.shape[0]}{f' at 1/{shrink} of its size' if shrink > 1 else ''}"
                    raise ImageError(f"prepare: {file} is {size}, too small for x{args.scale}; leave it out")
                hr, lr = _pair(hr, file, args)
                for y, x, part in _tiles(hr, args.tile, args.step or args.tile):
                    number += 1
                    if (number - 1) % args.every == 0:
                        s = args.scale
                        cut = lr[y // s : (y + part.shape[0]) // s, x // s : (x + part.shape[1]) // s]
                        yield f"{folder.name}/{file.stem}-{shrink}-{y}-{x}", (part, cut)


def bicubic_error(hr: np.ndarray, lr: np.ndarray) -> float:
    """Mean squared error (grey levels squared) of bicubic interpolation, by which sub-images are ranked."""
    restored = imresize(lr, hr.shape[0] / lr.shape[0])
    return float(np.square(restored.astype(np.float32) - hr).mean())


def hardest(args: argparse.Namespace, errors: list[float]) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The share ``args.hardest`` of the sub-images, whose ``errors`` are in the order of ``sub_images``."""
    count = max(1, round(args.hardest * len(errors)))
    kept = set(np.argsort(errors, kind="stable")[-count:].tolist())
    return (item for number, item in enumerate(sub_images(args)) if number in kept)


def _pair(hr: np.ndarray, file: Path, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    if args.lr is None:
        return shrink_for_scale(hr, args.scale)
    candidates = [args.lr / f"{file.stem}{end}{file.suffix}" for end in ("", f"x{args.scale}")]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise ImageError(f"{file} has no LR image: neither {candidates[0]} nor {candidates[1].name} exists")
    lr = read_image(found).rgb
    height, width = (side * args.scale for side in lr.shape[:2])
    if not (height <= hr.shape[0] < height + args.scale and width <= hr.shape[1] < width + args.scale):
        raise ImageError(
            f"{found} is {lr.shape[1]}x{lr.shape[0]}, which at scale {args.scale} is not the size of {file}, "
            f"{hr.shape[1]}x{hr.shape[0]}"
        )
    return hr[:height, :width], lr


def _tiles(hr: np.ndarray, side: int, step: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Sub-images side by side; an image smaller than one is kept whole, remainders at the border are dropped."""
    height, width = hr.shape[:2]
    if not side:
        yield 0, 0, hr
        return
    for y in range(0, max(1, height - side + 1), step):
        for x in range(0, max(1, width - side + 1), step):
            yield y, x, hr[y : y + side, x : x + side]
