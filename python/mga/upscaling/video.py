"""A video upscaled frame by frame, in parts that are kept, so that a run which was broken off goes on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mga_kernels.errors import InputError
from mga_kernels.images.size import Size, shrink
from mga_kernels.video import Encoding, Frame, Video, assemble, write_segment

from ..files.records import to_json, write_text

if TYPE_CHECKING:
    from mga_kernels.engine.model import MaskGuidedSR

PART = 50  # frames


@dataclass
class Told:
    """What became of a video: ``frames`` in it, those ``found`` in parts of an earlier run, ``seconds``, ``notes``."""

    size: tuple[int, int]
    frames: int = 0
    found: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def parts_of(target: Path) -> Path:
    """The folder in which the parts of a video are kept until all are there."""
    return target.with_name(target.name + ".parts")


def claim(target: Path, recipe: dict[str, object], anew: bool) -> Path:
    """The folder of parts, for results of ``recipe`` only; emptied first if ``anew``. InputError names what differs."""
    folder = parts_of(target)
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    known = folder / "recipe.json"
    wanted = json.loads(json.dumps(recipe))
    if known.exists():
        before = json.loads(known.read_text())
        differing = sorted(key for key in {*before, *wanted} if before.get(key) != wanted.get(key))
        if differing:
            raise InputError(
                f"{folder} holds parts of a run that differs in {', '.join(differing)}; run it as before, or start "
                "anew with --overwrite"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(known, to_json(wanted))
    return folder


def upscale_video(
    model: MaskGuidedSR,
    video: Video,
    target: Path,
    folder: Path,
    size: Size,
    encoding: Encoding,
    progress: Callable[[int], None] = lambda frames: None,
) -> Told:
    """Write ``target``. ``progress`` is told how many frames are done."""
    asked = size.of(video.width, video.height, model.scale)
    told = Told(encoding.size(*asked), notes=list(video.notes))
    if told.size != asked:
        sizes = " became ".join(f"{width}x{height}" for width, height in (asked, told.size))
        told.notes.append(f"{sizes}, since {encoding.codec} needs even sides")
    frames = video.frames()
    parts: list[Path] = []
    started = time.perf_counter()
    while (first := next(frames, None)) is not None:
        part = folder / f"{len(parts):06}.nut"
        some = chain([first], islice(frames, PART - 1))
        if part.exists():
            count = sum(1 for _ in some)
            told.found += count
        else:
            count = write_segment(part, _upscaled(model, some, told, progress), video, told.size, encoding)
        told.frames += count
        parts.append(part)
        progress(told.frames)
    told.seconds = time.perf_counter() - started
    if not parts:
        raise InputError(f"{video.path} has no frame that can be decoded")
    told.notes += assemble(parts, video, target)
    shutil.rmtree(folder)
    return told


def _upscaled(
    model: MaskGuidedSR, frames: Iterator[Frame], told: Told, progress: Callable[[int], None]
) -> Iterator[Frame]:
    for number, frame in enumerate(frames):
        large = cast(np.ndarray, model.upscale(frame.rgb))
        yield Frame(shrink(large, told.size), frame.pts, frame.duration)
        progress(told.frames + number + 1)


def recipe_of(
    source: Path, model: str, size: Size, encoding: Encoding, settings: dict[str, object]
) -> dict[str, object]:
    """What the parts of a video depend on, as JSON takes it."""
    from mga_kernels.version import code_version

    def identity(path: Path) -> object:
        return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None

    return {
        "video": [str(source.resolve()), identity(source)],
        "model": [model, identity(Path(model))],
        "size": asdict(size),
        "encoding": asdict(encoding),
        "settings": settings,
        "frames of a part": PART,
        "code": code_version("mga_kernels", "mga.upscaling"),
    }
