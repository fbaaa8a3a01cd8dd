"""``mga video``: a video in, a larger one out, with its sound, subtitles and times."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from mga_kernels.errors import ImageError, InputError
from mga_kernels.system.files import remove_left_parts, writable_folder

from ..console.lines import one_line
from ..console.pipes import check_in, frames_out
from ..console.screen import progress, screen
from ..upscaling.jobs import named
from .options import MASK_GUIDED, add_model_arguments, add_way_arguments, size_of, whole_number

if TYPE_CHECKING:
    from ..upscaling.video import Told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, MASK_GUIDED)  # whose time a frame is the shortest
    parser.add_argument("input", type=named, metavar="INPUT", help="a video that FFmpeg reads, - for standard input")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=named,
        metavar="OUT",
        help=".mp4, .mkv, .mov, .m4v or .webm, - for y4m to standard output",
    )
    parser.add_argument("--codec", metavar="C", help="h264 (default; of .webm av1), hevc, av1, or ffv1 without loss")
    parser.add_argument(
        "--crf", type=int, metavar="N", help="quality: smaller is better and larger (h264 14, hevc 19, av1 24)"
    )
    parser.add_argument("--bits", type=int, default=8, choices=(8, 10), help="of a value in the result (default 8)")
    add_way_arguments(parser)
    parser.add_argument(
        "--quality", type=str.lower, metavar="WORD", help="whole, or what the model has, such as high and fast"
    )
    parser.add_argument(
        "--tolerance",
        type=whole_number("the tolerance is a number of levels from 0 to 255", most=255),
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
    from mga_kernels.video import PIPE, Encoding, Video, codec_in

    from ..upscaling.video import Asked, Parts, stream_video, upscale_video
    from .models import load_by_scale

    source, target, size = args.input, args.output, size_of(args)
    codec = args.codec or "h264" if target == PIPE else codec_in(target, args.codec)
    encoding = Encoding(codec, args.crf, args.bits)
    if source == PIPE:
        check_in("a video into the command, such as ffmpeg -i in.mkv -f yuv4mpegpipe - |")
    if target == PIPE and (args.codec is not None or args.crf is not None):
        raise InputError("video: standard output is y4m, raw pictures, so --codec and --crf have no meaning there")
    with Video(source) as video:
        if target != PIPE:
            _check_target(source, target, args.overwrite)
        model = load_by_scale(args, mode=args.mode, runtime=args.runtime, quality=args.quality)
        with progress(screen(stderr=True, highlight=False)) as bar:
            task = bar.add_task(escape(one_line(source.name)), total=video.count)
            asked = Asked(
                model,
                video,
                size,
                encoding,
                lambda done: bar.update(task, completed=done),
                args.tolerance,
                not args.no_reuse,
            )
            if target == PIPE:
                with frames_out() as write:
                    _say(args, stream_video(asked, write))
                return 0
            parts = Parts(target, asked.recipe(source), args.overwrite)
            try:
                told = upscale_video(asked, target, parts)
            finally:
                if source == PIPE:  # which nobody can read again
                    parts.remove()
                parts.release()
    _say(args, told)
    return 0


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.exists():
        if source.exists() and target.samefile(source):
            raise ImageError(f"cannot write {target}: it is the input itself; choose another name")
        if not overwrite:
            raise ImageError(f"cannot write {target}: it exists already; choose another name or allow overwriting")
    writable_folder(target.parent)
    remove_left_parts(target.parent)  # of a run that was killed while it wrote the result


def _say(args: argparse.Namespace, told: Told) -> None:
    made = told.frames - told.found
    rate = f"{made / told.seconds:.2f} frames a second" if made else "all frames were there"
    found = f", {told.found} of an earlier run" if told.found and made else ""
    line = f"{args.input} -> {args.output} ({told.size[0]}x{told.size[1]}, {told.frames} frames{found}, {rate})"
    print(one_line(line))
    for note in told.notes:
        print(one_line(f"  {args.input.name}: {note}"))
