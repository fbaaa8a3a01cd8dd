"""Photographs upscaled one after the other: the next is read and the last ones are written while one is computed."""

from __future__ import annotations

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
from mga_kernels.files import writable_folder
from mga_kernels.images import Photo, check_output, read_image, save_image

from ..console.failures import Failures
from ..console.lines import one_line
from ..console.said import said_by_thread
from ..drawing.overlay import draw_overlay
from .jobs import Job, Request, has_result, refuse_names_that_fold

if TYPE_CHECKING:
    from mga_kernels.engine import MaskGuidedSR

_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))  # a PNG of 3840x2160 takes one of them a second or two


class HasResult(Exception):
    """Another run of the command has finished this image meanwhile."""


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


def upscale_all(load: Callable[[], MaskGuidedSR], jobs: Sequence[Job], request: Request, failures: Failures) -> None:
    """Upscale all jobs by the model that ``load`` gives, once it is known that their folders can be written to.

    A folder that was made for nothing goes again. KeyboardInterrupt says how many were finished.
    """
    folders = {path.parent for job in jobs for path in job.outputs}
    made = [folder for folder in sorted(folders) if writable_folder(folder, ImageError)]
    done: list[Path] = []
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
    from mga_kernels.stream import overlap

    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    both = console.is_terminal and sys.stderr.isatty()  # a log of errors stays one while the bar is shown
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True, redirect_stderr=both)
    with bar as progress, said_by_thread() as said:
        steps = (
            lambda job: _noted(said, read_job, job, model.scale, request.overwrite, request.skip_existing),
            lambda work: _noted(said, compute_job, model, work),
            lambda work: _lines(said, work, request.overwrite, request.skip_existing, done),
        )
        task = progress.add_task("upscaling", total=len(jobs))
        with closing(overlap(jobs, *steps, ahead=_WRITERS + 1, writers=_WRITERS)) as outcomes:
            for job in jobs:
                progress.update(task, description=escape(one_line(job.source.name)))
                outcome = next(outcomes)
                if outcome.error is not None and not isinstance(outcome.error, HasResult):
                    failures.add(job.source, outcome.error)
                for line in outcome.value or ():
                    console.print(one_line(line))
                progress.advance(task)


def read_job(job: Job, scale: int, overwrite: bool = False, skip: bool = False) -> Work:
    """The photograph of a job, if its result can be written; HasResult where it is there to be skipped."""
    started = time.perf_counter()
    if skip and has_result(job):
        raise HasResult
    photo = read_image(job.source)
    height, width = (side * scale for side in photo.rgb.shape[:2])
    see_through = photo.alpha is not None and bool((photo.alpha < 255).any())
    # Before the work, not after it.
    check_output(job.target, overwrite or skip, size=(width, height), alpha=see_through)
    if job.mask is not None:
        check_output(job.mask, overwrite or skip)
    return Work(job, photo, time.perf_counter() - started)


def _noted(said: Callable[[], list[str]], step: Callable[..., Work], *arguments: Any) -> Work:
    """A step of one image, with what is said meanwhile in its thread among its notes."""
    said()  # of an image that failed
    work = step(*arguments)
    work.notes += said()
    return work


def _lines(said: Callable[[], list[str]], work: Work, overwrite: bool, skip: bool, done: list[Path]) -> list[str]:
    """``write_job``, with what is said meanwhile in its thread."""
    said()
    lines = write_job(work, overwrite, skip, done)
    return lines + [f"  {work.job.source.name}: {note}" for note in said()]


def compute_job(model: MaskGuidedSR, work: Work) -> Work:
    """Upscale the photograph of ``work``."""
    started = time.perf_counter()
    cells = None
    if work.job.mask is None:
        result = cast(Photo, model.upscale(work.photo))
    else:
        explained = model.explain(work.photo)
        result = cast(Photo, explained.image)
        cells = explained.mask, explained.indices, explained.patch_size * explained.scale
    notes = work.notes + result.notes
    seconds = work.seconds + time.perf_counter() - started
    return Work(work.job, result, seconds, cells, model.refined, notes)


def write_job(work: Work, overwrite: bool, skip: bool, done: list[Path]) -> list[str]:
    """Write the result and its mask, both or none; returns a line about it and the notes on what was not kept.

    The mask comes first, so that it is there where a result is. To ``skip`` what has a result, one that appeared
    meanwhile is HasResult, and a mask or an empty file without a result is replaced.
    """
    started = time.perf_counter()
    job, result, notes = work.job, work.photo, []
    if skip and has_result(job):
        raise HasResult
    overwrite = overwrite or skip
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
