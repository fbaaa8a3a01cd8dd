"""``mga convert CKPT -o OUT.safetensors --images DIR [--split A+B | --extend N] [--minutes M]``."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mga_kernels.checkpoints import load_checkpoint, save_model
from mga_kernels.errors import InputError
from mga_kernels.files import writable_folder
from mga_kernels.networks import MaskGuidedNetwork, WholeNetwork
from mga_kernels.networks.config import PATCH_SIZES

from ..console.process import Stopped
from ..conversion.extended import extended_rfdn, fits_the_paper
from ..conversion.fitting import CROP, Fitting
from ..conversion.pictures import read_pairs
from ..conversion.teacher import can_lighten, check_convertible, check_split, halves
from ..evaluation.testsets import only_scale
from ..files.claim import flat
from ..settings.values import parse_split
from ..training.packs import Pair

MINUTES = 30.0
MOST_ADDED = 64  # blocks
UPSAMPLERS = ("light", "copied")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="file of a published network; it stays as it is")
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
        "--extend", metavar="N", help="better: the whole network becomes the Base-Net, N new blocks refine"
    )
    parser.add_argument(
        "--upsampler",
        choices=UPSAMPLERS,
        help="of the Base-Net of a split: a light one of its own (default, where the network's is more than a "
        "convolution), or a copy of the network's",
    )
    parser.add_argument("--minutes", metavar="M", default=f"{MINUTES:g}", help="time for training (default 30)")
    parser.add_argument("--patch-size", type=int, choices=PATCH_SIZES, default=8, help="p (default 8)")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a page that compares original and result")
    parser.add_argument("--hr", type=Path, metavar="DIR", help="HR images of the same names, for the report")
    decide = parser.add_argument_group("where the tensors do not tell")
    decide.add_argument("--input-range", metavar="R", help="values that the network works on: 0..1 or 0..255")
    decide.add_argument("--model-scale", type=int, metavar="S", help="its scale: 2, 3 or 4")


def run(args: argparse.Namespace) -> int:
    minutes = _minutes(args.minutes)
    _check_paths(args)
    expected = None if args.extend is not None else only_scale(args.hr, args.images)
    teacher = check_convertible(
        load_checkpoint(args.checkpoint, input_range=args.input_range, scale=args.model_scale, expected_scale=expected),
        str(args.checkpoint),
    )
    split = _split(args, teacher)
    extend = args.extend is not None
    upsampler = _upsampler(args, teacher)
    train, held_out = read_pairs(args.images, teacher.config.scale, CROP, extend)
    if extend and fits_the_paper(teacher, split[1]):
        network = extended_rfdn(teacher, split[1], args.patch_size, train[0])
    else:
        network = halves(teacher, split, args.patch_size, light=upsampler == "light")
    begun = {
        "original": hashlib.sha256(args.checkpoint.read_bytes()).hexdigest(),
        "split": list(split),
        "upsampler": upsampler,
        "patch size": args.patch_size,
        "minutes": minutes,
        "images": _fingerprint(train),
    }
    claimed = begun | {"held-out images": _fingerprint([held_out])}
    claimed |= flat({"original": json.loads(teacher.config.to_json())})  # what its file and the options say together
    folder = args.output.with_suffix(".state")
    fitting = Fitting(None if extend else teacher, network, train, held_out, folder, claimed, minutes)
    print(
        f"{teacher.config.network} x{teacher.config.scale}, {split[0]}+{split[1]} blocks, {minutes:g} minutes",
        flush=True,
    )
    stopped = _fit(fitting, folder)
    _save(args, network, fitting, begun | {"images": sum(map(len, train))})
    print(f"written: {args.output}")
    if extend and fitting.gain is not None and fitting.gain <= 0:
        print(
            "note: on the held-out images what was added does not make the picture better; stay with the original, or "
            "give more images and minutes",
            file=sys.stderr,
        )
    if args.report is not None:
        from ..report import write_report

        images, hr = (None, args.hr or args.images) if extend else (args.images, args.hr)
        write_report(
            args.output,
            args.checkpoint,
            images,
            args.report,
            hr,
            input_range=args.input_range,
            original_scale=args.model_scale,
            overwrite=True,  # that of a conversion that was stopped
        )
        print(f"written: {args.report}")
    return 130 if stopped else 0


def _fit(fitting: Fitting, folder: Path) -> bool:
    """Whether Ctrl-C stopped it: then the mask is fitted to what there is, unless it is stopped again.

    Another signal leaves no time for that, as when the machine shuts down.
    """
    try:
        fitting.run()
        return False
    except Stopped as signal:
        signal.args = (f"the same command goes on from {folder}",)
        raise
    except KeyboardInterrupt:
        again = f"the same command goes on from {folder}"
        print(f"stopped: fitting the mask, then writing what there is; {again}", file=sys.stderr, flush=True)
        fitting.finish_early()
        return True


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"convert: --minutes takes a positive number, got {text!r}")
    return minutes


def _check_paths(args: argparse.Namespace) -> None:
    if args.output.suffix != ".safetensors":
        raise InputError(f"convert: the result is a .safetensors file; -o {args.output} does not end so")
    if args.output.exists() and args.checkpoint.exists() and args.output.samefile(args.checkpoint):
        raise InputError(f"convert: -o {args.output} is the original; choose another file")
    if args.hr is not None and args.report is None:
        raise InputError("convert: --hr is for the report; add --report OUT.html")
    if not args.images.is_dir():
        raise InputError(f"convert: there is no folder {args.images}; correct --images")
    writable_folder(args.output.parent)
    if args.report is not None:
        from ..report import check_page

        check_page(args.report, overwrite=True)


def _split(args: argparse.Namespace, teacher: WholeNetwork) -> tuple[int, int]:
    blocks = teacher.config.blocks
    if args.extend is not None:
        if not (args.extend.isascii() and args.extend.isdecimal() and 1 <= int(args.extend) <= MOST_ADDED):
            raise InputError(f"convert: --extend takes a number of blocks, 1 to {MOST_ADDED}, got {args.extend!r}")
        return blocks, int(args.extend)
    split = parse_split(args.split) if args.split else (max(1, blocks * 3 // 4), blocks - max(1, blocks * 3 // 4))
    check_split(teacher, split)
    return split


def _upsampler(args: argparse.Namespace, teacher: WholeNetwork) -> str:
    """The Base-Net's."""
    if args.upsampler is not None and args.extend is not None:
        raise InputError("convert: --upsampler is for --split; an extended network keeps its own")
    can = args.extend is None and can_lighten(teacher)
    if args.upsampler == "light" and not can:
        raise InputError(
            f"convert: the upsampler of {teacher.config.network} is one convolution already; leave out --upsampler"
        )
    return args.upsampler or ("light" if can else "copied")


def _fingerprint(groups: list[list[Pair]]) -> str:
    """Of pixels, those of the HR images too."""
    digest = hashlib.sha256()
    for hr, lr in (pair for group in groups for pair in group):
        digest.update(repr((hr.shape, lr.shape)).encode() + hr.tobytes() + lr.tobytes())
    return digest.hexdigest()


def _save(args: argparse.Namespace, network: MaskGuidedNetwork, fitting: Fitting, begun: dict[str, Any]) -> None:
    notice = f"those of {args.checkpoint.name}, from which they were made; its licence holds"
    facts = {
        "converted": args.checkpoint.name,
        "way": "split" if fitting.teacher is not None else "extend",
        **begun,
        "iterations": fitting.planned(),
        "results": fitting.results,
        "finished": time.strftime("%Y-%m-%d", time.gmtime()) if fitting.finished else "stopped early",
        "torch": torch.__version__,
    }
    if fitting.mask_unit:
        facts["mask_unit"] = fitting.mask_unit
    save_model(args.output, network, {"weights": notice}, facts)
