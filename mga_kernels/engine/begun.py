"""Photographs that are begun before the one before them has come back: where plans can, which are those for GPUs."""

from __future__ import annotations

import time
from contextlib import suppress

from .. import images
from ..errors import OutOfMemoryError
from ..modes import ordinary
from ..networks.tiny import Border
from ..runtimes.plan import Begun as Computing
from ..system.threads import allowed_threads
from .model import MaskGuidedSR
from .pictures import levels, values
from .result import Result
from .runner import Runner


class Begun:
    """A photograph whose picture is being computed; ``done`` and ``result`` as those of a Future."""

    def __init__(
        self,
        model: MaskGuidedSR,
        photo: images.Photo,
        border: Border,
        runner: Runner,
        computing: Computing,
        dense: bool,
    ):
        self._model, self._photo, self._border, self._runner = model, photo, border, runner
        self._computing, self._dense, self._started = computing, dense, time.perf_counter()

    @classmethod
    @ordinary()
    def of(cls, model: MaskGuidedSR, photo: images.Photo) -> Begun | None:
        """Begin it; None where no plan of ``model`` begins images, or there is no memory for it as a whole.

        ``MaskGuidedSR.upscale`` then makes it, in tiles if need be.
        """
        with model._lock:
            if not model._of(photo.deep).planner.begins:
                return None
        border, rgb = Border.around(values(photo), 0, 1, model.patch_size)
        with model._lock, allowed_threads(), suppress(OutOfMemoryError):
            runner, size = model._of(photo.deep), (rgb.shape[0], rgb.shape[1])
            with runner.memory_errors(*size):
                plan, dense = runner.plan(*size), runner.choice.dense(*size)
                computing = plan.begin(rgb, dense=dense)
            return None if computing is None else cls(model, photo, border, runner, computing, dense)
        return None

    def done(self) -> bool:
        return self._computing.done()

    @ordinary()
    def result(self) -> Result:
        """What ``upscale`` returns of a Photo with ``return_result``; again in a wider dtype where values need it."""
        pixels, finite, refined = self._computing.result()
        if not finite:
            self._model._widen(self._runner, self._runner.narrow)
            return self._model.upscale(self._photo, return_result=True)
        taken = {"run": time.perf_counter() - self._started}
        made = self._photo.upscaled(levels(self._border.cut(pixels, 0, 1, self._model.scale)))
        return Result(made, None if self._dense or self._model.whole else refined, list(made.notes), taken)
