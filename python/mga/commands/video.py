"""``mga video``: a video in, a larger one out, with its sound, subtitles and times."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mga_kernels.errors import ImageError, InputError
from mga_kernels.system.files import identities, writable_folder

from ..console.lines import one_line
from .options import SHIPPED, add_model_arguments, size_of

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

SETTINGS = ("k", "fraction", "device", "dtype", "runtime", "mode", "colour", "input_range", "model_scale")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, by_scale=True)
    parser.add_argument("input", type=Path, metavar="INPUT", help="a video that FFmpeg reads")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help=".mp4, .mkv, .mov, .m4v or .webm"
    )
    parser.add_argument("--codec", default="h264", metavar="C", help="h264 (default), hevc, av1, or ffv1 without loss")
    parser.add_argument(
        "--crf", type=int, metavar="N", help="quality: smaller is better and larger (h264 17, hevc 19, av1 24)"
    )
    parser.add_argument("--bits", type=int, default=8, choices=(8, 10), help="of a value in the result (default 8)")
    parser.add_argument("--mode", choices=("masked", "dense", "auto"), help="as for `mga upscale`")
    parser.add_argument("--runtime", default="auto", choices=("auto", "own", "openvino", "pytorch"), help="likewise")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an output that exists, and parts of a run that was broken off"
    )


def run(args: argparse.Namespace) -> int:
    """The command. A run that was broken off goes on where it was, frame for frame the same."""
    from mga_kernels.video import Encoding, Video, container_of

    from ..upscaling.video import claim, recipe_of, upscale_video

    size, encoding = size_of(args), Encoding(args.codec, args.crf, args.bits)
    container_of(args.output)
    if args.output.exists():
        found = args.output.stat()
        if (found.st_dev, found.st_ino) in identities([args.input]):
            raise ImageError(f"cannot write {args.output}: it is the input itself; choose another name")
        if not args.overwrite:
            raise ImageError(f"cannot write {args.output}: it exists already; choose another name or allow overwriting")
    with Video(args.input) as video:
        writable_folder(args.output.parent)
        settings = {name: getattr(args, name) for name in SETTINGS}
        folder = claim(args.output, recipe_of(args.input, args.model, size, encoding, settings), args.overwrite)
        model = _load(args)
        console = Console(stderr=True, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task(escape(one_line(args.input.name)), total=video.count)
            told = upscale_video(
                *(model, video, args.output, folder, size, encoding),
                progress=lambda done: progress.update(task, completed=done),
            )
    made = told.frames - told.found
    rate = f"{made / told.seconds:.2f} frames a second" if made else "all frames were there"
    found = f", {told.found} of an earlier run" if told.found and made else ""
    line = f"{args.input} -> {args.output} ({told.size[0]}x{told.size[1]}, {told.frames} frames{found}, {rate})"
    print(one_line(line))
    for note in told.notes:
        print(one_line(f"  {args.input.name}: {note}"))
    return 0


def _load(args: argparse.Namespace) -> MaskGuidedSR:
    from .models import load

    if sys.stderr.isatty():
        print(f"loading {args.model}", file=sys.stderr)
    expected = int(args.scale) if args.scale in SHIPPED else None
    model = load(args, expected_scale=expected, mode=args.mode, runtime=args.runtime)
    if args.scale is not None and args.scale > model.scale:
        raise InputError(f"video: the model {args.model} is for x{model.scale}, not for --scale {args.scale:g}")
    return model
