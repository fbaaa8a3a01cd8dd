"""``mga prepare``: folders of images -> a training set in one file (see ``mga.training.packs``)."""

from __future__ import annotations

import argparse
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.networks.config import SCALES

from ..training.packs import write_pack
from ..training.sub_images import Cutting
from .options import filled


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
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output} exists; give --overwrite to replace it")
    if not args.output.parent.is_dir():
        raise InputError(f"prepare: {args.output} cannot be written, its folder does not exist; create it first")
    wanted = filled(Cutting, args)
    wanted.check()
    wanted.check_names(args.output)
    count = write_pack(args.output, wanted.pairs(), args.scale)
    print(f"written: {args.output}, {count} pairs, {args.output.stat().st_size / 2**20:.1f} MiB")
    return 0
