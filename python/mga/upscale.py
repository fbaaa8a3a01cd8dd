"""``mga upscale``: photographs in, larger photographs out."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mga_kernels.errors import ImageError, InputError, MGAError
from mga_kernels.files import writable_folder
from mga_kernels.images import FORMATS, Photo, check_output, read_image, save_image

from .folders import list_images
from .overlay import draw_overlay

if TYPE_CHECKING:
    from mga_kernels.engine import MaskGuidedSR

_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))  # a PNG of 3840x2160 takes one of them a second or two
_EXTENSION = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


@dataclass(frozen=True)
class Job:
    """One photograph to upscale, and where its result and the picture of its mask go."""

    source: Path
    target: Path
    mask: Path | None


@dataclass
class Work:
    """A job on its way: its photograph, later the result instead, and the seconds that were spent on it.

    ``cells``: the mask, the indices and the side of a cell in pixels of the result, where a picture of them is wanted.
    """

    job: Job
    photo: Photo
    seconds: float
    cells: tuple[np.ndarray, np.ndarray, int] | None = None
    refined: int | None = None
    notes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="images, or folders (the images directly in them)"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file for one image; otherwise a folder, made if need be, where results are named as the inputs",
    )
    parser.add_argument(
        "--format",
        choices=_EXTENSION,
        help="file format in a folder (default: as the input where it is PNG, JPEG, WebP or TIFF, otherwise PNG)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what an image may take beside the model, such as 2GiB; larger ones are cut into tiles "
        "(default: nine tenths of what is free)",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "own", "openvino", "pytorch"),
        help="what runs the network: our own convolutions, OpenVINO or PyTorch (default: the first that can)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument(
        "--save-mask",
        metavar="PNG",
        help="a picture of the refined cells: a file for one image, otherwise a folder of NAME-mask.png",
    )


def run(args: argparse.Namespace) -> int:
    """The command. Everything that can be refused is refused before the first image is touched."""
    sources, passed_over = find_inputs(args.inputs)
    jobs = plan(args, sources)
    folders = {path.parent for job in jobs for path in (job.target, job.mask) if path is not None}
    made = [folder for folder in sorted(folders) if writable_folder(folder, ImageError)]
    done: list[Path] = []
    try:
        from .models import load

        model = load(
            args,
            threshold=args.threshold,
            max_ms=args.max_ms,
            mode=args.mode,
            runtime=args.runtime,
            memory=args.memory,
        )
        failures = _run_all(model, jobs, args.overwrite, done)
    except KeyboardInterrupt:
        remark = "no partial file was left"
        raise KeyboardInterrupt(f"{len(done)} of {len(jobs)} images were finished; {remark}") from None
    finally:
        for folder in reversed(made) if not done else ():
            if not any(folder.iterdir()):
                folder.rmdir()
    if passed_over:
        shown = ", ".join(path.name for path in passed_over[:3]) + (", ..." if len(passed_over) > 3 else "")
        print(f"mga: not images by their names, so not upscaled: {shown}", file=sys.stderr)
    for failure in failures:
        print(f"mga: {failure}", file=sys.stderr)
    if failures and len(jobs) > 1:
        print(f"mga: {len(failures)} of {len(jobs)} images failed", file=sys.stderr)
    return 1 if failures else 0


def find_inputs(inputs: list[Path]) -> tuple[list[Path], list[Path]]:
    """(image files, files of the folders that are no images). Folders are searched one level deep."""
    sources: list[Path] = []
    passed_over: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            if not path.exists():
                raise ImageError(f"{path} does not exist")
            sources.append(path)
            continue
        images, others = list_images(path)
        if not images:
            raise ImageError(f"there is no image in the folder {path} (subfolders are not searched)")
        sources += images
        passed_over += others
    return sources, passed_over


def plan(args: argparse.Namespace, sources: list[Path]) -> list[Job]:
    """The jobs, with every output checked against the others, the inputs and what exists."""
    several = len(sources) > 1 or any(path.is_dir() for path in args.inputs)
    output = Path(args.output)
    into_folder = several or output.is_dir() or args.output.endswith("/")
    if several and not output.is_dir() and output.suffix.lower() in FORMATS:
        raise InputError(f"several images need a folder as output, but {output} is the name of an image file")
    if not into_folder and args.format and FORMATS.get(output.suffix.lower()) != FORMATS[_EXTENSION[args.format]]:
        raise InputError(f"--format {args.format} contradicts the name of the output, {output}; leave one out")
    jobs = []
    for source in sources:
        target = output / (source.stem + _extension(source, args.format)) if into_folder else output
        mask = Path(args.save_mask) if args.save_mask else None
        if mask is not None and (several or mask.is_dir()):
            mask = mask / f"{source.stem}-mask.png"
        jobs.append(Job(source, target, mask))
    _check(jobs, sources, args.overwrite)
    return jobs


def _extension(source: Path, wanted: str | None) -> str:
    if wanted is not None:
        return _EXTENSION[wanted]
    return source.suffix if source.suffix.lower() in FORMATS else ".png"


def _check(jobs: list[Job], sources: list[Path], overwrite: bool) -> None:
    owners: dict[Path, Path] = {}
    for job in jobs:
        for path in (job.target, job.mask):
            if path is None:
                continue
            if path in owners and owners[path] != job.source:
                remedy = "rename one or upscale them into different folders"
                raise InputError(f"{owners[path]} and {job.source} would both be written to {path}; {remedy}")
            if path in owners:
                raise InputError(f"the result and the mask of {job.source} would both be written to {path}")
            owners[path] = job.source
            check_output(path, overwrite, inputs=sources)


def _run_all(model: MaskGuidedSR, jobs: list[Job], overwrite: bool, done: list[Path]) -> list[str]:
    """Upscale all jobs, adding to ``done`` what is finished; returns what to say about those that failed."""
    from mga_kernels.stream import overlap

    failures: list[str] = []
    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    # Filters of warnings belong to the process, so they are set before there are threads.
    with bar as progress, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        steps = (
            lambda job: read_job(job, model.scale, overwrite),
            lambda work: compute_job(model, work, said),
            lambda work: write_job(work, overwrite, done),
        )
        task = progress.add_task("upscaling", total=len(jobs))
        with closing(overlap(jobs, *steps, ahead=_WRITERS + 1, writers=_WRITERS)) as outcomes:
            for job in jobs:
                progress.update(task, description=job.source.name.replace("[", "\\["))
                outcome = next(outcomes)
                if isinstance(outcome.error, MGAError):
                    failures.append(str(outcome.error))
                elif outcome.error is not None:
                    raise outcome.error
                for line in outcome.value or ():
                    console.print(line)
                progress.advance(task)
    return failures


def read_job(job: Job, scale: int, overwrite: bool) -> Work:
    """The photograph of a job, if its result can be written."""
    started = time.perf_counter()
    photo = read_image(job.source)
    height, width = (side * scale for side in photo.rgb.shape[:2])
    see_through = photo.alpha is not None and bool((photo.alpha < 255).any())
    check_output(job.target, overwrite, size=(width, height), alpha=see_through)  # before the work, not after it
    return Work(job, photo, time.perf_counter() - started)


def compute_job(model: MaskGuidedSR, work: Work, said: list[warnings.WarningMessage]) -> Work:
    """Upscale the photograph of ``work``; what was ``said`` meanwhile becomes its notes."""
    started = time.perf_counter()
    del said[:]
    cells = None
    if work.job.mask is None:
        result = cast(Photo, model.upscale(work.photo))
    else:
        explained = model.explain(work.photo)
        result = cast(Photo, explained.image)
        cells = explained.mask, explained.indices, explained.patch_size * explained.scale
    notes = result.notes + [str(warning.message) for warning in said]
    seconds = work.seconds + time.perf_counter() - started
    return Work(work.job, result, seconds, cells, model.refined, notes)


def write_job(work: Work, overwrite: bool, done: list[Path]) -> list[str]:
    """Write the result and its mask, both or none; returns a line about it and the notes on what was not kept."""
    started = time.perf_counter()
    job, result, notes = work.job, work.photo, []
    if job.mask is not None and work.cells is not None:
        notes = save_image(draw_overlay(result.rgb, *work.cells), job.mask, overwrite)
    try:
        notes = save_image(result, job.target, overwrite) + notes
    except BaseException:
        if job.mask is not None:
            job.mask.unlink(missing_ok=True)
        raise
    done.append(job.target)
    height, width = result.rgb.shape[:2]
    how = "dense" if work.refined is None else f"K = {work.refined}"
    seconds = work.seconds + time.perf_counter() - started
    line = f"{job.source} -> {job.target} ({width}x{height}, {how}, {seconds:.1f} s)"
    return [line, *(f"  {job.source.name}: {note}" for note in work.notes + notes)]
