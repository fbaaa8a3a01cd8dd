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
from rich.markup import escape

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import (
    LOSSY,
    Film,
    Photo,
    check_format,
    check_holds,
    check_output,
    encode_film,
    encode_image,
    read_picture,
    save_film,
    save_image,
)
from mga_kernels.images.size import Size
from mga_kernels.system.files import remove_left_parts, writable_folder

from ..console.failures import Failures
from ..console.lines import one_line
from ..console.said import said_by_thread
from ..console.screen import progress, screen
from ..drawing.overlay import draw_overlay
from .jobs import STREAM, Job, Request, has_result, refuse_names_that_fold

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR
    from mga_kernels.engine.overlap import Begun
    from mga_kernels.engine.quick import Quick

_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))  # most formats are packed by one processor, for seconds


class HasResult(Exception):
    """Another run of the command has finished this image meanwhile."""


@dataclass
class Work:
    """A job on its way: its photograph, later the result instead, and the seconds that were spent on it.

    ``size``: (width, height) of the result.
    ``cells``, where a picture of them is wanted: what the network made, the mask, the indices and the side of a cell in
    pixels. ``how``: what made the result. ``frames``: those of a film that were made, each with its milliseconds.
    """

    job: Job
    photo: Photo | Film
    seconds: float
    size: tuple[int, int]
    cells: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None
    how: str = ""
    notes: list[str] = field(default_factory=list)
    frames: list[tuple[Photo, float]] = field(default_factory=list)


def upscale_all(
    load: Callable[[], MaskGuidedSR | Quick],
    jobs: Sequence[Job],
    request: Request,
    failures: Failures,
    done: list[Path],
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


def _run_all(
    model: MaskGuidedSR | Quick, jobs: Sequence[Job], request: Request, failures: Failures, done: list[Path]
) -> None:
    """Upscale all jobs, adding to ``done`` what is finished."""
    from mga_kernels.engine.overlap import overlap

    console = screen(highlight=False, markup=False, soft_wrap=True)
    both = console.is_terminal and sys.stderr.isatty()  # a log of errors stays one while the bar is shown
    with progress(console, both) as bar, said_by_thread() as said:
        steps = (
            lambda job: _noted(said, read_job, job, model.scale, request),
            lambda work: _noted(said, compute_job, model, work, request.size, request.wrap),
            lambda work: _lines(said, work, request, done),
        )
        task = bar.add_task("upscaling", total=len(jobs))

        def begin(work: Work) -> Begun[Work] | None:
            said()
            begun = begin_job(model, work, request, lambda step: _noted(said, step))
            work.notes += said()  # now, since before its result comes another image has been begun
            return begun

        with closing(overlap(jobs, *steps, ahead=_WRITERS + 1, writers=_WRITERS, begin=begin)) as outcomes:
            for job in jobs:
                bar.update(task, description=escape(one_line(Path(job.name).name)))
                outcome = next(outcomes)
                if outcome.error is not None and not isinstance(outcome.error, HasResult):
                    failures.add(Path(job.name), outcome.error, job.behind)
                for line in outcome.value or ():
                    console.print(one_line(line))
                bar.advance(task)


def read_job(job: Job, scale: int, request: Request) -> Work:
    """The photograph of a job, if its result can be written; HasResult where it is there to be skipped."""
    started = time.perf_counter()
    overwrite = request.overwrite or request.skip_existing
    if request.skip_existing and has_result(job):
        raise HasResult
    photo = read_picture(None if job.source == STREAM else job.source, request.data or b"", job.name)
    size = request.size.of(*photo.size, scale)
    facts: dict[str, Any] = {"size": size}
    if isinstance(photo, Photo):
        facts |= {"alpha": photo.see_through, "deep": photo.deep}
        if job.mask is not None and (photo.goes_round if request.wrap is None else request.wrap):
            remedy = "leave --save-mask out or give --no-wrap"
            raise InputError(f"{job.name} goes round at its edges, and a mask does not; {remedy}")
    elif job.mask is not None:
        raise InputError(f"{job.name} holds {photo.count} frames or pages, and a mask is of one picture")
    # Before the work, not after it.
    name, kind = "to standard output", request.kind(job.target, photo.format)
    if job.target == STREAM:
        check_format(kind, name, **facts, quality=request.quality)
    else:
        name = str(job.target)
        check_output(job.target, overwrite, **facts)
    if isinstance(photo, Film):
        check_holds(photo, kind, name)
        return Work(job, photo, time.perf_counter() - started, size)
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


def compute_job(model: MaskGuidedSR | Quick, work: Work, asked: Size, wrap: bool | None = None) -> Work:
    """Upscale the photograph of ``work``, or shrink it where the result is no larger."""
    # Here, since the engine brings PyTorch, and what is refused at once should not wait for its seconds.
    from mga_kernels.engine.enlarging import fitted, larger, larger_frames, refinement

    started = time.perf_counter()
    photo, cells = work.photo, None
    if isinstance(photo, Film):
        frames, how = larger_frames(model, photo, asked)
        seconds = work.seconds + time.perf_counter() - started
        return Work(work.job, photo, seconds, work.size, None, how, work.notes + photo.notes, frames)
    if work.job.mask is not None:
        explained = model.explain(photo)
        result = cast(Photo, explained.image)
        cells = result.in_eight_bits().rgb, explained.mask, explained.indices, explained.patch_size * explained.scale
        how = refinement(explained.refined)
        result = fitted(photo, result, work.size)
    else:
        result, how = larger(model, photo, work.size, wrap)
    notes = work.notes + result.notes
    seconds = work.seconds + time.perf_counter() - started
    return Work(work.job, result, seconds, work.size, cells, how, notes)


def begin_job(
    model: MaskGuidedSR | Quick, work: Work, request: Request, noted: Callable[[Callable[[], Work]], Work]
) -> Begun[Work] | None:
    """``compute_job`` of a photograph, begun on a GPU; None where that is not how it is made.

    ``noted`` runs what is left to do then.
    """
    from mga_kernels.engine.enlarging import begin_larger
    from mga_kernels.engine.overlap import Then

    photo, started = work.photo, time.perf_counter()
    if isinstance(photo, Film) or work.job.mask is not None:
        return None
    begun = begin_larger(model, photo, work.size, request.wrap)

    def made(found: tuple[Photo, str]) -> Work:
        result, how = found
        seconds = work.seconds + time.perf_counter() - started
        return Work(work.job, result, seconds, work.size, None, how, work.notes + result.notes)

    return None if begun is None else Then(begun, made, noted)


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
            notes = _to_stream(work, request) + notes
        else:
            kind = request.kind(job.target, None)
            options = job.target, overwrite, request.quality if kind in LOSSY else None
            if isinstance(result, Film):
                notes = save_film(result, work.frames, *options)
            else:
                notes = save_image(result, *options) + notes
    except BaseException:
        if job.mask is not None:
            job.mask.unlink(missing_ok=True)
        raise
    done.append(job.target)
    width, height = work.size
    seconds = work.seconds + time.perf_counter() - started
    parts = [f"{width}x{height}", work.how, f"{seconds:.1f} s"]
    if isinstance(result, Film):
        parts.insert(1, f"{len(work.frames)} {'pages' if result.pages else 'frames'}")
    line = f"{job.source} -> {job.target} ({', '.join(parts)})"
    return [line, *(f"  {Path(job.name).name}: {note}" for note in work.notes + notes)]


def _to_stream(work: Work, request: Request) -> list[str]:
    encoded, result = io.BytesIO(), work.photo  # in which TIFF is changed behind its writer
    options = request.kind(STREAM, result.format), encoded, "to standard output", request.quality
    if isinstance(result, Film):
        notes = encode_film(result, work.frames, *options)
    else:
        notes = encode_image(result, *options)
    assert request.result is not None
    request.result.write(encoded.getbuffer())
    return notes
