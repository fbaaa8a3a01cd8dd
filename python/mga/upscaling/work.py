"""Photographs upscaled one after the other: the next is read and the last ones are written while one is computed."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mga_kernels.errors import ImageError
from mga_kernels.images import (
    LOSSY,
    Photo,
    check_format,
    check_output,
    encode_image,
    read_image,
    read_stream,
    save_image,
)
from mga_kernels.images.size import shrink
from mga_kernels.system.files import remove_left_parts, writable_folder

from ..console.failures import Failures
from ..console.lines import one_line
from ..console.said import said_by_thread
from ..drawing.overlay import draw_overlay
from .jobs import STREAM, Job, Request, has_result, refuse_names_that_fold

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))  # a PNG of 3840x2160 takes one of them a second or two


class HasResult(Exception):
    """Another run of the command has finished this image meanwhile."""


@dataclass
class Work:
    """A job on its way: its photograph, later the result instead, and the seconds that were spent on it.

    ``size``: (width, height) of the result.
    ``cells``, where a picture of them is wanted: what the network made, the mask, the indices and the side of a cell in
    pixels. ``how``: what made the result.
    """

    job: Job
    photo: Photo
    seconds: float
    size: tuple[int, int]
    cells: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None
    how: str = ""
    notes: list[str] = field(default_factory=list)


def upscale_all(
    load: Callable[[], MaskGuidedSR], jobs: Sequence[Job], request: Request, failures: Failures, done: list[Path]
) -> None:
    """Upscale all jobs by the model that ``load`` gives, once it is known that their folders can be written to.

    Results go to ``done`` as they are written. A folder that was made for nothing goes again. KeyboardInterrupt says
    how many were finished.
    """
    folders = {path.parent for job in jobs for path in job.outputs}
    made = [folder for folder in sorted(folders) if writable_folder(folder, ImageError)]
    for folder in folders.difference(made):
        remove_left_parts(folder)
    try:
        refuse_names_that_fold(jobs)
        _run_all(load(), jobs, request, failures, done)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"{len(done)} of {len(jobs)} images were finished; no partial file was left",)
        raise
    finally:
        for folder in reversed(made) if not done else ():
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _run_all(model: MaskGuidedSR, jobs: Sequence[Job], request: Request, failures: Failures, done: list[Path]) -> None:
    """Upscale all jobs, adding to ``done`` what is finished."""
    from mga_kernels.engine.batch import overlap

    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    both = console.is_terminal and sys.stderr.isatty()  # a log of errors stays one while the bar is shown
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True, redirect_stderr=both)
    with bar as progress, said_by_thread() as said:
        steps = (
            lambda job: _noted(said, read_job, job, model.scale, request),
            lambda work: _noted(said, compute_job, model, work),
            lambda work: _lines(said, work, request, done),
        )
        task = progress.add_task("upscaling", total=len(jobs))
        with closing(overlap(jobs, *steps, ahead=_WRITERS + 1, writers=_WRITERS)) as outcomes:
            for job in jobs:
                progress.update(task, description=escape(one_line(Path(job.name).name)))
                outcome = next(outcomes)
                if outcome.error is not None and not isinstance(outcome.error, HasResult):
                    failures.add(Path(job.name), outcome.error, job.behind)
                for line in outcome.value or ():
                    console.print(one_line(line))
                progress.advance(task)


def read_job(job: Job, scale: int, request: Request) -> Work:
    """The photograph of a job, if its result can be written; HasResult where it is there to be skipped."""
    started = time.perf_counter()
    overwrite = request.overwrite or request.skip_existing
    if request.skip_existing and has_result(job):
        raise HasResult
    if job.source == STREAM:
        photo = read_stream(io.BytesIO(request.data or b""), job.name, deep=True)
    else:
        photo = read_image(job.source, deep=True)
    size = request.size.of(*photo.size, scale)
    facts: dict[str, Any] = {"size": size, "alpha": photo.see_through, "deep": photo.deep}
    # Before the work, not after it.
    if job.target == STREAM:
        kind = request.kind(job.target, photo.format)
        check_format(kind, "to standard output", **facts, quality=request.quality)
    else:
        check_output(job.target, overwrite, **facts)
    if job.mask is not None:
        check_output(job.mask, overwrite)
    return Work(job, photo, time.perf_counter() - started, size)


def _noted(said: Callable[[], list[str]], step: Callable[..., Work], *arguments: Any) -> Work:
    """A step of one image, with what is said meanwhile in its thread among its notes."""
    said()  # of an image that failed
    work = step(*arguments)
    work.notes += said()
    return work


def _lines(said: Callable[[], list[str]], work: Work, request: Request, done: list[Path]) -> list[str]:
    """``write_job``, with what is said meanwhile in its thread."""
    said()
    lines = write_job(work, request, done)
    return lines + [f"  {Path(work.job.name).name}: {note}" for note in said()]


def refinement(cells: int | None) -> str:
    """How much of a photograph was refined, in words."""
    return "dense" if cells is None else f"K = {cells}"


def compute_job(model: MaskGuidedSR, work: Work) -> Work:
    """Upscale the photograph of ``work``, or shrink it where the result is no larger."""
    started = time.perf_counter()
    photo, cells = work.photo, None
    width, height = photo.size
    if work.job.mask is not None:
        explained = model.explain(photo)
        result = cast(Photo, explained.image)
        cells = result.in_eight_bits().rgb, explained.mask, explained.indices, explained.patch_size * explained.scale
        how = refinement(explained.refined)
    elif work.size[0] <= width and work.size[1] <= height:
        result, how = photo, "without the network, as it is no larger than the image"
    else:
        made = model.upscale(photo, return_result=True)
        result, how = cast(Photo, made.image), refinement(made.refined)
    notes = work.notes + result.notes
    if result.size != work.size:
        result = photo.upscaled(shrink(result.rgb, work.size))
    seconds = work.seconds + time.perf_counter() - started
    return Work(work.job, result, seconds, work.size, cells, how, notes)


def write_job(work: Work, request: Request, done: list[Path]) -> list[str]:
    """Write the result and its mask, both or none; returns a line about it and the notes on what was not kept.

    The mask comes first, so that it is there where a result is. To ``skip`` what has a result, one that appeared
    meanwhile is HasResult, and a mask or an empty file without a result is replaced.
    """
    started = time.perf_counter()
    job, result, notes = work.job, work.photo, []
    if request.skip_existing and has_result(job):
        raise HasResult
    overwrite = request.overwrite or request.skip_existing
    if job.mask is not None and work.cells is not None:
        notes = save_image(draw_overlay(*work.cells), job.mask, overwrite)
    try:
        if job.target == STREAM:
            notes = _to_stream(result, request) + notes
        else:
            kind = request.kind(job.target, None)
            notes = save_image(result, job.target, overwrite, request.quality if kind in LOSSY else None) + notes
    except BaseException:
        if job.mask is not None:
            job.mask.unlink(missing_ok=True)
        raise
    done.append(job.target)
    width, height = result.size
    seconds = work.seconds + time.perf_counter() - started
    line = f"{job.source} -> {job.target} ({width}x{height}, {work.how}, {seconds:.1f} s)"
    return [line, *(f"  {Path(job.name).name}: {note}" for note in work.notes + notes)]


def _to_stream(result: Photo, request: Request) -> list[str]:
    encoded = io.BytesIO()  # in which TIFF is changed behind its writer
    notes = encode_image(result, request.kind(STREAM, result.format), encoded, "to standard output", request.quality)
    assert request.result is not None
    request.result.write(encoded.getbuffer())
    return notes
