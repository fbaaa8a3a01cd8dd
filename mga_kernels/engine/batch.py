"""``MaskGuidedSR.upscale_all``: many images, read and saved beside the one that is computed (``overlap``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .. import images
from ..errors import InputError
from .overlap import Begun, Outcome, Then, overlap
from .pictures import ImageLike, Picture, in_form_of, read
from .result import Result

if TYPE_CHECKING:
    from .model import MaskGuidedSR


@dataclass(frozen=True)
class Upscaled:
    """What became of one image of ``MaskGuidedSR.upscale_all``: either ``image`` or ``error`` is not None.

    ``image`` is in the form that ``upscale`` returns for ``source``; ``notes`` say what of it could not be kept.
    ``refined``: cells refined, None where the dense network made it.
    """

    source: ImageLike
    image: Picture | None = None
    error: Exception | None = None
    notes: list[str] = field(default_factory=list)
    refined: int | None = None


def upscale_all(
    model: MaskGuidedSR,
    sources: Iterable[ImageLike],
    ahead: int = 2,
    save: Callable[[Upscaled], object] | None = None,
    savers: int = 1,
) -> Generator[Upscaled, None, None]:
    """Upscale many images with ``model`` as its ``upscale`` does; results come in the order of ``sources``.

    While one is computed, those after it are read, and ``save``, where given, is called with those before it, in
    ``savers`` threads; without it, saving is the caller's and nothing is computed meanwhile but what a GPU has begun:
    of a GPU's images the next is begun before the one before it has come back, so two are in flight. At most ``ahead``
    images besides the one that is computed are held, so memory stays bounded. An image that fails, or that ``save``
    fails with, comes with its ``error`` in its turn. Arrays and PIL images must stay as they are until their turn.
    Closing the iterator, or Ctrl-C while it works, waits for the images that are being read or saved, not for others;
    where the code around it may fail, ``contextlib.closing`` makes sure of it. InputError for a wrong ``ahead`` or
    ``save``, and for one image in place of several, of which the letters or rows would be taken for images.
    """
    if not isinstance(sources, Iterable) or _is_one_image(sources):
        raise InputError(
            f"upscale_all: expected images to go through, got one {type(sources).__name__}; put it in a list"
        )
    if save is not None and not callable(save):
        raise InputError(
            f"upscale_all: save is a function that writes what it is given, an Upscaled, got {type(save).__name__}"
        )

    from .begun import Begun as OnGpu  # here, since it needs the model, whose module needs this one

    def upscaled(source: ImageLike, result: Result) -> Upscaled:
        assert isinstance(result.image, images.Photo)
        return Upscaled(source, in_form_of(source, result.image), None, result.notes, result.refined)

    def begin(loaded: tuple[ImageLike, images.Photo]) -> Begun[Upscaled] | None:
        source, photo = loaded
        begun = OnGpu.of(model, photo)
        return None if begun is None else Then(begun, lambda result: upscaled(source, result))

    def compute(loaded: tuple[ImageLike, images.Photo]) -> Upscaled:
        source, photo = loaded
        return upscaled(source, model.upscale(photo, return_result=True))

    def write(upscaled: Upscaled) -> Upscaled:
        if save is not None:
            save(upscaled)
        return upscaled

    outcomes = overlap(sources, lambda source: (source, read(source)), compute, write, ahead, savers, begin)
    return _as_upscaled(outcomes)


def _is_one_image(sources: object) -> bool:
    if isinstance(sources, np.ndarray):
        return sources.ndim < 3 or (sources.ndim == 3 and sources.shape[2] <= 4)
    return isinstance(sources, str | bytes | os.PathLike | Image.Image | images.Photo)


def _as_upscaled(outcomes: Generator[Outcome[ImageLike, Upscaled], None, None]) -> Generator[Upscaled, None, None]:
    with closing(outcomes):
        for outcome in outcomes:
            yield outcome.value or Upscaled(outcome.source, error=outcome.error)
            del outcome  # or its picture would live until the next one is there
