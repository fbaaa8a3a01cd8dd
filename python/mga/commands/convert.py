"""``mga convert CKPT -o OUT.safetensors --images DIR [--split A+B | --extend N | --regions | --black-box]``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from mga_kernels.checkpoints import shipped_models
from mga_kernels.errors import InputError
from mga_kernels.networks.config import PATCH_SIZES
from mga_kernels.networks.regions import PATCH_SIZES as OF_REGIONS

from ..conversion.black_box import BASE
from ..conversion.convert import CELL, Request, convert
from ..conversion.second import named
from ..conversion.settings import load_training
from ..settings.toml import overrides_of
from .options import add_overrides, filled

MINUTES = 30.0
UPSAMPLERS = ("light", "copied")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CKPT",
        help="file of a published network, which stays as it is, or the name of one that `mga models` lists",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the result, a .safetensors file"
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of images: those to be upscaled, or such; for --extend HR images",
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--split",
        metavar="A+B",
        help="faster: the first A blocks with an upsampler of their own become the Base-Net, the other B the "
        "Refine-Net (default: three quarters and one)",
    )
    way.add_argument(
        "--extend",
        metavar="N|MODEL",
        help="better: the whole network becomes the Base-Net, and N new blocks, which are trained, refine; or another "
        "network of the same scale does, a file or a name that `mga models` lists, by the mean of both pictures",
    )
    way.add_argument(
        "--regions",
        action="store_true",
        help="faster: the whole network refines regions of what a small network of its own makes, which learns it from "
        "the network's pictures (default for networks that are not cut in two)",
    )
    way.add_argument(
        "--black-box",
        action="store_true",
        help="faster: a network that is not ours, as spandrel loads it, refines rectangles of what a smaller one "
        "makes; nothing is trained",
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help=f"of --black-box: makes the coarse picture, a shipped model or a file of ours (default {BASE})",
    )
    parser.add_argument(
        "--upsampler",
        choices=UPSAMPLERS,
        help="of the Base-Net of a split: a light one of its own (default, where the network's is more than a "
        "convolution), or a copy of the network's",
    )
    parser.add_argument(
        "--minutes", metavar="M", default=f"{MINUTES:g}", help="time for training, or measuring (default 30)"
    )
    sizes = sorted({*PATCH_SIZES, *OF_REGIONS})
    parser.add_argument("--patch-size", type=int, choices=sizes, help="p (default 8, of --regions 12)")
    parser.add_argument(
        "--config", type=Path, metavar="TOML", help="settings of the training (mga.conversion.settings)"
    )
    add_overrides(parser)
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a page that compares original and result")
    parser.add_argument("--hr", type=Path, metavar="DIR", help="HR images of the same names, for the report")
    decide = parser.add_argument_group("where the tensors do not tell")
    decide.add_argument("--input-range", metavar="R", help="values that the network works on: 0..1 or 0..255")
    decide.add_argument("--model-scale", type=int, metavar="S", help="its scale: 2, 3 or 4")


def run(args: argparse.Namespace) -> int:
    minutes = _minutes(args.minutes)
    if args.hr is not None and args.report is None:
        raise InputError("convert: --hr is for the report; add --report OUT.html")
    untrained = "--black-box" if args.black_box else "--extend by another network"
    if args.report is not None and (args.black_box or (args.extend is not None and named(args.extend) is not None)):
        raise InputError(f"convert: --report is not for {untrained}; what it measures is printed, and in the file")
    if args.report is not None:
        from ..report import check_page

        check_page(args.report, overwrite=True)
    checkpoint = shipped_models().get(str(args.checkpoint), args.checkpoint)
    training = load_training(args.config, overrides_of(args.overrides, "convert"), args.patch_size or CELL)
    stopped = convert(filled(Request, args, checkpoint=checkpoint, minutes=minutes, training=training))
    if args.report is not None:
        from ..report import write_report

        images, hr = (args.images, args.hr) if args.extend is None else (None, args.hr or args.images)
        write_report(
            args.output,
            checkpoint,
            images,
            args.report,
            hr,
            input_range=args.input_range,
            original_scale=args.model_scale,
            overwrite=True,  # that of a conversion that was stopped
        )
        print(f"written: {args.report}")
    return 130 if stopped else 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"convert: --minutes takes a positive number, got {text!r}")
    return minutes
