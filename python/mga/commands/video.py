"""``mga video``: a video in, a larger one out, with its sound, subtitles and times."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mga_kernels.errors import ImageError
from mga_kernels.system.files import writable_folder

from ..console.lines import one_line
from .options import MASK_GUIDED, add_model_arguments, size_of


def levels(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 255:
        raise argparse.ArgumentTypeError(f"the tolerance is a number of levels from 0 to 255, got {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, MASK_GUIDED)  # whose time a frame is the shortest
    parser.add_argument("input", type=Path, metavar="INPUT", help="a video that FFmpeg reads")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help=".mp4, .mkv, .mov, .m4v or .webm"
    )
    parser.add_argument("--codec", default="h264", metavar="C", help="h264 (default), hevc, av1, or ffv1 without loss")
    parser.add_argument(
        "--crf", type=int, metavar="N", help="quality: smaller is better and larger (h264 14, hevc 19, av1 24)"
    )
    parser.add_argument("--bits", type=int, default=8, choices=(8, 10), help="of a value in the result (default 8)")
    parser.add_argument("--mode", choices=("masked", "dense", "auto"), help="as for `mga upscale`")
    parser.add_argument("--runtime", default="auto", choices=("auto", "own", "openvino", "pytorch"), help="likewise")
    parser.add_argument(
        "--tolerance",
        type=levels,
        default=0,
        metavar="N",
        help="of noisy videos: what differs from the frame before by N of 255 levels or less stays (default 0)",
    )
    parser.add_argument(
        "--no-reuse", action="store_true", help="make every frame as a whole, also what is as in the frame before"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an output that exists, and parts of a run that was broken off"
    )


def run(args: argparse.Namespace) -> int:
    """The command. A run that was broken off goes on where it was, frame for frame the same."""
    from mga_kernels.video import Encoding, Video, container_of

    from ..upscaling.video import Parts, recipe_of, upscale_video
    from .models import load_by_scale

    size, encoding = size_of(args), Encoding(args.codec, args.crf, args.bits)
    container_of(args.output)
    with Video(args.input) as video:
        if args.output.exists():
            if args.output.samefile(args.input):
                raise ImageError(f"cannot write {args.output}: it is the input itself; choose another name")
            if not args.overwrite:
                remedy = "choose another name or allow overwriting"
                raise ImageError(f"cannot write {args.output}: it exists already; {remedy}")
        writable_folder(args.output.parent)
        model = load_by_scale(args, mode=args.mode, runtime=args.runtime)
        parts = Parts(args.output, recipe_of(args.input, model, size, encoding, args.tolerance), args.overwrite)
        console = Console(stderr=True, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task(escape(one_line(args.input.name)), total=video.count)
            told = upscale_video(
                *(model, video, args.output, parts, size, encoding),
                progress=lambda done: progress.update(task, completed=done),
                tolerance=args.tolerance,
                reuse=not args.no_reuse,
            )
    made = told.frames - told.found
    rate = f"{made / told.seconds:.2f} frames a second" if made else "all frames were there"
    found = f", {told.found} of an earlier run" if told.found and made else ""
    line = f"{args.input} -> {args.output} ({told.size[0]}x{told.size[1]}, {told.frames} frames{found}, {rate})"
    print(one_line(line))
    for note in told.notes:
        print(one_line(f"  {args.input.name}: {note}"))
    return 0
