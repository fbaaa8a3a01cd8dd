"""A video upscaled frame by frame, in parts that are kept, so that a run which was broken off goes on."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mga_kernels.engine import Frames
from mga_kernels.errors import InputError
from mga_kernels.images.size import Size, shrink
from mga_kernels.system.files import remove_left_parts
from mga_kernels.version import code_version
from mga_kernels.video import PIPE, Encoding, Frame, Video, assemble, frames_in, write_segment, write_y4m

from ..files.claim import claim_folder, content_of, flat, hold_folder, weights_of
from ..files.records import Record

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

PART = 50  # frames
NAMES, RECIPE = "[0-9]" * 6 + ".nut", "recipe.json"  # of the files in a folder of parts


@dataclass
class Told:
    """What became of a video: ``frames`` in it, those ``found`` in parts of an earlier run, ``seconds``, ``notes``."""

    size: tuple[int, int]
    frames: int = 0
    found: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Parts:
    """The folder OUT.parts, in which parts of a video of one ``recipe`` are kept until all are there.

    ``anew``: those that are there are removed. InputError names what differs where they are of another recipe, and says
    where another run is making them. The folder is made with the first part, and is this run's own until ``release``.
    """

    def __init__(self, target: Path, recipe: Record, anew: bool):
        self.folder, self.recipe = target.with_name(target.name + ".parts"), recipe
        self._held: int | None = None
        if self.folder.is_dir():
            self._hold()
        try:
            if anew:
                self.remove()
            if any(self.folder.glob(NAMES)):
                self.claim()
        except BaseException:
            self.release()
            raise

    def claim(self) -> None:
        """Note what the parts are made by, or compare it."""
        claim_folder(self.folder / RECIPE, self.recipe, "video", "run it as before, or start anew with --overwrite")

    def found(self) -> list[Path]:
        """Those that are there, from the first on."""
        return list(takewhile(Path.exists, map(self.path, count())))

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06}.nut"

    def begin(self) -> None:
        """Make the folder; a record without parts is of a run that made none."""
        self._hold()
        (self.folder / RECIPE).unlink(missing_ok=True)
        self.claim()

    def remove(self) -> None:
        """The parts and the folder, unless there is something else in it."""
        for path in (*self.folder.glob(NAMES), self.folder / RECIPE):
            path.unlink(missing_ok=True)
        remove_left_parts(self.folder)
        with suppress(OSError):
            self.folder.rmdir()
        self.release()

    def _hold(self) -> None:
        if self._held is None:
            target = self.folder.with_suffix("")
            remedy = "wait until it has ended, or choose another name"
            self._held = hold_folder(self.folder, f"video: another run is making {target}; {remedy}")

    def release(self) -> None:
        """Let other runs have the folder."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


@dataclass(frozen=True)
class Asked:
    """What is to be made of a video. ``progress`` is told how many frames are done; the rest is as for ``Frames``."""

    model: MaskGuidedSR
    video: Video
    size: Size
    encoding: Encoding
    progress: Callable[[int], None] = lambda frames: None
    tolerance: int = 0
    reuse: bool = True

    def begun(self) -> tuple[Told, Frames]:
        video, encoding = self.video, self.encoding
        video.keep_bits(encoding.bits)
        asked = self.size.of(video.width, video.height, self.model.scale)
        told = Told(encoding.size(*asked))
        if told.size != asked:
            sizes = " became ".join(f"{width}x{height}" for width, height in (asked, told.size))
            told.notes.append(f"{sizes}, since {encoding.codec} needs even sides")
        return told, Frames(self.model, self.tolerance, self.reuse)

    def upscaled(self, film: Frames, frames: Iterator[Frame], told: Told) -> Iterator[Frame]:
        last = made = np.empty(0, np.uint8)
        for number, frame in enumerate(frames):
            large = film.upscale(frame.rgb)
            if large is not last:  # else the encoder is to see that it is the same
                last, made = large, shrink(large, told.size)
            yield Frame(made, frame.pts, frame.duration)
            self.progress(told.frames + number + 1)

    def recipe(self, source: Path) -> Record:
        """What the parts of a video depend on, as JSON takes it. Those of PIPE are nobody else's."""
        model = self.model
        return flat(
            {
                "video": secrets.token_hex(8) if source == PIPE else content_of(source, "video"),
                "network": model.config.to_json(),
                "weights": weights_of(model.model),
                "settings": {name: str(value) for name, value in vars(model.settings).items()},
                "size": asdict(self.size),
                "encoding": asdict(self.encoding),
                "tolerance": self.tolerance,
                "frames of a part": PART,
                "code": code_version("mga_kernels", "mga.upscaling", exact=True),
            }
        )


def upscale_video(asked: Asked, target: Path, kept: Parts) -> Told:
    """Write ``target``, going on behind the parts that are there."""
    video, encoding, parts = asked.video, asked.encoding, kept.found()
    told, film = asked.begun()
    told.frames = told.found = sum(map(frames_in, parts))
    frames = video.frames(told.found)
    started = time.perf_counter()
    while (first := next(frames, None)) is not None:
        if not parts:
            kept.begin()
        parts.append(kept.path(len(parts)))
        some = chain([first], islice(frames, PART - 1))
        if asked.tolerance:  # what a frame is then depends on those before it, and a run may go on with any part
            film.restart()
        told.frames += write_segment(parts[-1], asked.upscaled(film, some, told), video, told.size, encoding)
    told.seconds = time.perf_counter() - started
    film.compare()
    if not parts:
        raise InputError(f"{video.name} has no frame that can be decoded")
    told.notes += [*video.notes, *assemble(parts, video, target), *filter(None, [str(film.told)])]
    kept.remove()
    return told


def stream_video(asked: Asked, write: Callable[[bytes], object]) -> Told:
    """Give the result to ``write`` as y4m, pictures alone."""
    video, (told, film) = asked.video, asked.begun()
    started = time.perf_counter()
    notes = write_y4m(write, asked.upscaled(film, video.frames(), told), video, told.size, asked.encoding)
    told.frames, told.seconds = film.told.frames, time.perf_counter() - started
    film.compare()
    if not told.frames:
        raise InputError(f"{video.name} has no frame that can be decoded")
    told.notes += [*video.notes, *notes, *filter(None, [str(film.told)])]
    return told
