"""One photograph, or all frames of a film, made as large as is asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ..images import Film, Photo
from ..images.photo import resize
from ..images.size import Size, shrink
from ..system.memory import require_memory
from .overlap import Begun, Then
from .quick import Quick

if TYPE_CHECKING:
    from .model import MaskGuidedSR
    from .result import Result

_UNKNOWN = 32  # LR pixels beyond an edge for a network that looks at all of the image
_RESIZING = 16  # and for the result to be shrunk
_JOINED = "its left and right edges meet, as those of a panorama of 360 degrees; --no-wrap takes them for edges"
_BYTES = 8  # of a pixel of a frame that waits to be written: four channels, and once more as its encoder has them


def refinement(cells: int | None) -> str:
    """How much of a photograph was refined, in words."""
    return "dense" if cells is None else f"K = {cells}"


def fitted(photo: Photo, result: Photo, size: tuple[int, int]) -> Photo:
    """``result``, which was made of ``photo``, of (width, height) ``size``."""
    return result if result.size == size else photo.upscaled(shrink(result.rgb, size))


def larger(
    model: MaskGuidedSR | Quick, photo: Photo, size: tuple[int, int], wrap: bool | None = None
) -> tuple[Photo, str]:
    """The photograph of (width, height) ``size``, and what made it, in words.

    ``wrap``: its left and right edges meet, as those of a panorama of 360 degrees; None where its metadata say so.
    """
    if photo.goes_round if wrap is None else wrap:
        return _all_round(model, photo, size)
    if not _runs(model, photo, size):
        return fitted(photo, photo, size), "without the network, as it is no larger than the image"
    return _as_asked(photo, size, model.upscale(photo, return_result=True))


def begin_larger(
    model: MaskGuidedSR | Quick, photo: Photo, size: tuple[int, int], wrap: bool | None = None
) -> Begun[tuple[Photo, str]] | None:
    """``larger``, begun on a GPU; None where that is not how it is made."""
    if isinstance(model, Quick):
        return None
    from .begun import Begun as OnGpu  # which needs the model

    if (photo.goes_round if wrap is None else wrap) or not _runs(model, photo, size):
        return None
    begun = OnGpu.of(model, photo)
    return None if begun is None else Then(begun, lambda made: _as_asked(photo, size, made))


def _runs(model: MaskGuidedSR | Quick, photo: Photo, size: tuple[int, int]) -> bool:
    """Whether the network is asked for: something larger, or what a network of x1 is for, which enlarges nothing."""
    return model.scale == 1 or size[0] > photo.size[0] or size[1] > photo.size[1]


def _as_asked(photo: Photo, size: tuple[int, int], made: Result) -> tuple[Photo, str]:
    return fitted(photo, cast(Photo, made.image), size), refinement(made.refined)


def _all_round(model: MaskGuidedSR | Quick, photo: Photo, size: tuple[int, int]) -> tuple[Photo, str]:
    """``larger``, with what is beyond each edge at the other: as far as the network looks, and resizing."""
    width, height = photo.size
    reach = model.model.reach
    looks = _UNKNOWN if reach.front is None else reach.front + max(reach.around, reach.refine or 0)
    cell = math.lcm(model.patch_size, reach.multiple)
    beside = -(-max(looks, _RESIZING) // cell) * cell
    around = Photo(np.ascontiguousarray(np.pad(photo.rgb, ((0, 0), (beside, beside), (0, 0)), mode="wrap")))
    how, scale = "without the network, as it is no larger than the image", 1
    if _runs(model, photo, size):
        made = model.upscale(around, return_result=True)
        around, how, scale = cast(Photo, made.image), refinement(made.refined), model.scale
    if size == (scale * width, scale * height):
        rgb = around.rgb[:, scale * beside : scale * (beside + width)]
    else:
        rgb = resize(around.rgb, size, scale * beside)
    result = photo.upscaled(np.ascontiguousarray(rgb))
    return replace(result, notes=[*result.notes, _JOINED]), how


def larger_frames(model: MaskGuidedSR | Quick, film: Film, asked: Size) -> tuple[list[tuple[Photo, float]], str]:
    """All frames with their milliseconds, and what made the last of them. Equal ones that follow are made once."""
    width, height = asked.of(*film.size, model.scale)
    what = f"upscaling the {film.count} frames of {film.name} to {width}x{height}"
    require_memory(film.count * width * height * _BYTES, what, "make files of its frames and upscale those")
    frames: list[tuple[Photo, float]] = []
    before: Photo | None = None
    how = ""
    for photo, milliseconds in film.frames():
        if before is not None and _same(photo, before):
            frames.append((frames[-1][0], milliseconds))
            continue
        made, how = larger(model, photo, asked.of(*photo.size, model.scale))
        frames.append((made, milliseconds))
        before = photo
    return frames, how


def _same(one: Photo, other: Photo) -> bool:
    """Whether two frames look the same, below alpha 0 too."""
    return one.grey == other.grey and np.array_equal(one.levels(), other.levels())
