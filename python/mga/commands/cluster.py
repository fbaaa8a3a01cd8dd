"""``mga cluster``: photographs upscaled by all the workers of a Ray cluster, or of this machine."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from mga_kernels.errors import InputError
from mga_kernels.images import FORMATS, LOSSY
from mga_kernels.system.files import check_file, whole_file

from ..console.lines import one_line
from ..console.screen import progress, screen
from ..upscaling.jobs import EXTENSION
from .options import SHIPPED, add_model_arguments, number, quality, size_of, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, SHIPPED)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders, with their subfolders, or tables of Parquet; paths, or addresses such as s3://bucket/photos",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a folder or an address; what is there already stays"
    )
    parser.add_argument(
        "--format",
        type=str.lower,
        choices=EXTENSION,
        help="of results (default: as the input where it is PNG, JPEG, WebP or TIFF, otherwise PNG)",
    )
    parser.add_argument("--quality", type=quality, metavar="Q", help="as for `mga upscale`, a number or a word")
    parser.add_argument("--wrap", action=argparse.BooleanOptionalAction, help="as for `mga upscale`")
    parser.add_argument("--failures", type=Path, metavar="JSONL", help="write what failed there, a row a line")
    parser.add_argument(
        "--address", metavar="A", help="of the cluster, such as auto (default: RAY_ADDRESS, or one here)"
    )
    workers = whole_number("workers are a whole number, 1 or more", 1)
    parser.add_argument("--workers", type=workers, metavar="N", help="how many (default: as many as there is room for)")
    above = number("a share is a number above 0", above=0)
    parser.add_argument("--cpus", type=above, metavar="N", help="of each worker (default 2, with a GPU 1)")
    parser.add_argument(
        "--gpus", type=above, metavar="N", help="of each worker, 0.5 too (default 1 where there are any)"
    )
    parser.add_argument("--bytes-column", default="bytes", metavar="NAME", help="of tables (default bytes)")
    parser.add_argument("--name-column", default="name", metavar="NAME", help="of tables (default name)")


def run(args: argparse.Namespace) -> int:
    """The command. What is there already is left; a failed image is a row, and the others are done."""
    from mga_kernels.distributed import Workers, find, upscale
    from mga_kernels.distributed.job import to_do

    from .models import load_by_scale

    suffix = None if args.format is None else EXTENSION[args.format]
    of_file = args.quality if isinstance(args.quality, int) else None
    if of_file is not None and suffix is not None and FORMATS[suffix] not in LOSSY:
        raise InputError(f"cluster: --quality has no meaning for {FORMATS[suffix]}, without loss; leave it out")
    settings = _settings(args)
    here = argparse.Namespace(**vars(args) | {"device": "cpu"})
    load_by_scale(here, quality=settings["quality"])  # which says what is wrong before there are workers
    if args.failures is not None and Path(args.output) not in args.failures.parents:  # else its folder is made first
        check_file(args.failures)
    found = find(args.inputs, args.bytes_column, args.name_column)
    sources, there = to_do(found, args.output, suffix)
    workers = Workers(args.workers, args.cpus, args.gpus, args.address)
    options = {"size": size_of(args), "suffix": suffix, "wrap": args.wrap, **settings}
    rows = upscale(sources, args.output, workers, file_quality=of_file, **options)
    done, failed = _shown(rows, len(sources))
    if args.failures is not None:
        with whole_file(args.failures) as stream:
            stream.writelines(json.dumps(row).encode() + b"\n" for row in failed)
    kept = f", {there} were there" if there else ""
    lost = f", {len(failed)} failed" if failed else ""
    print(f"{done} of {len(sources) + there} images upscaled into {one_line(args.output)}{kept}{lost}")
    return 1 if failed else 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What ``MaskGuidedSR.from_checkpoint`` is to be given on every worker."""
    model = os.path.abspath(args.model) if os.path.exists(args.model) else args.model
    names = "colour", "input_range", "k", "fraction", "device", "dtype"
    settings = {"model": model, "scale": args.model_scale, **{name: getattr(args, name) for name in names}}
    expected = int(args.scale) if args.scale in SHIPPED else None
    word = args.quality if isinstance(args.quality, str) else None
    return settings | {"expected_scale": expected, "quality": word}


def _shown(rows: Any, total: int) -> tuple[int, list[dict[str, Any]]]:
    """(how many were done, the rows of those that failed), with a line about each of these."""
    console = screen(stderr=True, highlight=False, markup=False, soft_wrap=True)
    done, failed = 0, []
    with progress(console) as bar, closing(rows):
        task = bar.add_task("upscaling", total=total)
        for row in rows:
            if row["error"]:
                failed.append(row)
                console.print(f"mga: {one_line(row['error'])}")
            else:
                done += 1
            bar.advance(task)
    return done, failed
