"""``mga upscale``: photographs in, larger photographs out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from mga_kernels.engine.quick import Quick, find, keep
from mga_kernels.errors import InputError
from mga_kernels.images import AtMost, Quality
from mga_kernels.system.files import check_file

from ..console.failures import Failures
from ..console.lines import one_line
from ..console.pipes import bytes_in, bytes_out
from ..console.screen import screen
from ..files.folders import image_suffixes
from ..files.lists import read_list, write_list
from ..settings.processes import share_of_all, share_of_machine
from ..upscaling.jobs import EXTENSION, STREAM, Request, Source, find_inputs, named, plan, unfinished, without_results
from ..upscaling.work import upscale_all
from .options import SHIPPED, Value, add_model_arguments, add_way_arguments, bytes_of, number, quality, size_of

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR


def _add_photograph_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``mga upscale`` can choose besides the model: it runs photographs, the others run tensors."""
    parser.add_argument(
        "--threshold",
        type=number("the threshold is a mask value, a number around 0 to 1"),
        metavar="T",
        help="refine only cells whose mask value is larger, at most --k of them: of a learned mask, as fsrcnn-x2 has "
        "it, the predicted error, from 0, none, to 1, that of the worst cells; of regions, as of span-x4-regions, the "
        "detail of the coarse image, some hundredths, of which mga info MODEL names those of its qualities",
    )
    parser.add_argument(
        "--max-ms",
        type=number("the time is a number of milliseconds above 0", above=0),
        metavar="MS",
        help="refine as many cells as there is time for, measured once for each image size on this machine",
    )
    parser.add_argument(
        "--denoise",
        type=number("the strength is a number from 0 to 1"),
        metavar="D",
        help="0 to 1, the network as it is: mix it with the one that denoises least (Real-ESRGAN's -dn)",
    )
    parser.add_argument(
        "--denoise-model",
        metavar="NAME|PATH",
        help="the network that denoises least (default: the general-wdn file beside a general one)",
    )
    add_way_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, SHIPPED)
    _add_photograph_arguments(parser)
    parser.add_argument(
        "inputs",
        nargs="*",
        type=named,
        metavar="INPUT",
        help="images, or folders (the images directly in them); - is one image from standard input",
    )
    parser.add_argument(
        "--from",
        dest="listed",
        type=Path,
        metavar="LIST",
        help="also what this file names, one a line (or as find -print0); the result of a/./b/c.png is OUT/b/c.png",
    )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="LIST",
        help="write the names of what failed, or was not come to, there, for --from",
    )
    parser.add_argument(
        "--recursive", action="store_true", help="search subfolders, too; results are in folders of the same names"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file for one image; otherwise a folder, made if need be, where results are named as the inputs; "
        "- is standard output",
    )
    parser.add_argument(
        "--format",
        type=str.lower,
        choices=EXTENSION,
        help="file format in a folder or on standard output "
        "(default: as the input where it is PNG, JPEG, WebP or TIFF, otherwise PNG)",
    )
    parser.add_argument(
        "--quality",
        type=quality,
        action="append",
        metavar="Q",
        help="1 to 100, of results that are JPEG (default 95), AVIF, HEIC (90), WebP or JPEG XL (without loss); or "
        "that of the picture, a word: whole, or what the model has, such as high and fast (may be given once each)",
    )
    parser.add_argument(
        "--target-size",
        type=bytes_of,
        metavar="SIZE",
        help="of the file of a result, such as 500KB: the best quality with which it is no larger (JPEG, AVIF, HEIC, "
        "WebP, JPEG XL)",
    )
    parser.add_argument(
        "--wrap",
        action=argparse.BooleanOptionalAction,
        help="left and right edges meet, as those of a panorama of 360 degrees (default: where its metadata say so)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what an image may take beside the model, such as 2GiB; larger ones are cut into tiles "
        "(default: nine tenths of what is free)",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="cut images into tiles of N pixels a side whatever their size, with 16 pixels around each: little memory, "
        "but where the network looks further the picture is not that of the whole image",
    )
    parser.add_argument(
        "--mask",
        choices=("learned", "high-pass"),
        help="by what cells are chosen: the network's mask, which predicts errors, or, for nothing, by where the "
        "coarse image has most detail (default: what the model says, which is high-pass of those that ship)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out images whose result exists, to go on where an earlier run was broken off",
    )
    parser.add_argument(
        "--save-mask",
        metavar="PNG",
        help="a picture of the refined cells: a file for one image, otherwise a folder of NAME-mask.png",
    )


def run(args: argparse.Namespace) -> int:
    """The command. Everything that can be refused is refused before the first image is touched."""
    if not args.inputs and args.listed is None:
        raise InputError("upscale: name images or folders, or a list of them with --from")
    if args.failures is not None and STREAM in args.inputs:
        raise InputError("upscale: a list cannot name what came through standard input; leave --failures out")
    if args.failures is not None and args.failures.suffix.lower() in image_suffixes():
        raise InputError(
            f"upscale: --failures {args.failures} is the name of an image, and it would be a text; rename it"
        )
    request = request_of(args)
    if named(args.output) != STREAM:
        return _run(args, request)
    with bytes_out() as result:
        return _run(args, replace(request, result=result))


def request_of(args: argparse.Namespace) -> Request:
    """What the options ask for; InputError where they contradict each other."""
    listed = None if args.listed is None else [Source.listed(*entry) for entry in read_list(args.listed)]
    existing, (rank, world) = (args.overwrite, args.skip_existing), _share(args)
    picture_quality(args)
    return Request(
        *(args.inputs, args.output, args.format, args.save_mask, *existing, args.recursive, listed, size_of(args)),
        quality=_of_files(args),
        wrap=args.wrap,
        rank=rank,
        world=world,
    )


def _share(args: argparse.Namespace) -> tuple[int, int]:
    """(number of this process, how many share the images), as torchrun and the like tell them."""
    found = share_of_all()
    if found.world > 1 and args.failures is not None:
        raise InputError("upscale: several processes cannot write one list of --failures; go on with --skip-existing")
    return found.rank, found.world


def _of_files(args: argparse.Namespace) -> Quality:
    """What --quality or --target-size ask of files."""
    quality = _one_quality(args, int)
    if args.target_size is None:
        return quality
    if quality is not None:
        raise InputError("upscale: --target-size looks for the quality, so --quality Q cannot be given too")
    return AtMost(args.target_size)


def _one_quality(args: argparse.Namespace, kind: type[Value]) -> Value | None:
    """Of files, a number, or of pictures, a word; InputError where there are two."""
    given = [value for value in args.quality or () if isinstance(value, kind)]
    if len(given) > 1:
        raise InputError(f"upscale: --quality {given[0]} and --quality {given[1]} contradict each other; leave one out")
    return given[0] if given else None


def picture_quality(args: argparse.Namespace) -> str | None:
    """What --quality asks of the picture, not of its file."""
    return _one_quality(args, str)


def _run(args: argparse.Namespace, request: Request) -> int:
    failures = Failures()
    with _status() as say:
        sources, passed_over = find_inputs(request, failures)
        jobs = plan(request, sources, say)
        total, planned = len(jobs) + failures.count, len(jobs)
        if args.skip_existing:
            jobs = list(without_results(jobs))
    if len(jobs) < planned:
        print(f"mga: {planned - len(jobs)} of {total} images are left out, their results exist", file=sys.stderr)
    if any(job.source == STREAM for job in jobs):
        request = replace(request, data=bytes_in())
    done: list[Path] = []
    try:
        if jobs:
            upscale_all(lambda: _ready(args), jobs, request, failures, done)
    finally:
        if args.failures is not None:  # which may be the list of this run, so what it did not come to stays in it
            write_list(args.failures, [*failures.entries, *unfinished(jobs, request, failures, done)])
    if passed_over:
        shown = ", ".join(path.name for path in passed_over[:3]) + (", ..." if len(passed_over) > 3 else "")
        print(f"mga: not images by their names, so not upscaled: {one_line(shown)}", file=sys.stderr)
    return failures.exit_code(total)


def _ready(args: argparse.Namespace) -> MaskGuidedSR | Quick:
    """The model, once it is known that there can be a list of failures; the folder of results may hold it."""
    if args.failures is not None:
        check_file(args.failures)
    return quickest(args)


# Options that leave a model as it is: each has one of these values.
_PLAIN: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("k", "fraction", "threshold", "max_ms", "memory", "tile", "mask", "save_mask"), (None,)),
    **dict.fromkeys(("colour", "input_range", "model_scale", "denoise", "denoise_model"), (None,)),
    "mode": (None, "dense"),
    "runtime": ("auto", "own"),
    "dtype": ("auto", "float32"),  # programs are in float32
    "device": ("auto", "cpu"),
}


def quickest(args: argparse.Namespace) -> MaskGuidedSR | Quick:
    """The model that the options name, without PyTorch where that can be."""
    plain = all(getattr(args, name) in values for name, values in _PLAIN.items())
    plain = plain and picture_quality(args) in (None, "whole") and share_of_machine().world == 1
    if not plain or "torch" in sys.modules:
        return load(args)
    quick = find(args.model, args.device, lambda: load(args))
    if quick is not None and (args.scale is None or args.scale <= quick.scale):
        return quick
    model = load(args)
    if quick is None:
        keep(args.model, args.device, model)
    return model


def load(args: argparse.Namespace) -> MaskGuidedSR:
    """The model that the options name."""
    from .models import load_by_scale

    if args.device == "auto" and share_of_machine().world > 1:
        from ..training.workers import device_of

        args.device = str(device_of(args.device))
    with _status() as say:
        say(f"loading {args.model}")
        names = "threshold", "max_ms", "mode", "runtime", "memory", "tile", "mask"
        settings = {name: getattr(args, name) for name in names}
        return load_by_scale(args, **settings, quality=picture_quality(args))


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """A function that shows on a terminal what goes on, until the block ends."""
    console = screen(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("looking for images") as shown:
        yield lambda text: shown.update(escape(text))
