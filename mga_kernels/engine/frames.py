"""Frames of a film one after another: what has not changed keeps the result that it had, byte for byte."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from ..errors import InputError
from ..modes import ordinary
from ..networks.tiny import SIDE
from ..quantities import check_whole_number
from ..runtimes import Plan
from .pictures import shared

if TYPE_CHECKING:
    from .model import MaskGuidedSR

# Of the work of a frame: where more is to be done, all of it is as fast; the first where what layers made is kept.
MOST_KEPT, MOST = 0.9, 0.65
DEAREST = 0.05  # of the time of a film, which a frame that is made to compare may take
MOST_TOLERANCE = 255
Changed = np.ndarray  # bool (H, W)


@dataclass
class Reused:
    """How many ``frames`` there were; those ``same`` as the one before and those of which ``parts`` were made.

    ``work``: that was done, in frames. ``seconds`` of all, ``whole`` of each frame that was made as a whole, also to
    compare. ``reason`` why no parts were made, where a frame had some.
    """

    frames: int = 0
    same: int = 0
    parts: int = 0
    work: float = 0.0
    seconds: float = 0.0
    whole: list[float] = field(default_factory=list)
    reason: str = ""

    def count(self, share: float, seconds: float) -> None:
        """A frame of which this share of the work was done, in so many seconds."""
        self.frames += 1
        self.work += share
        self.seconds += seconds
        self.same += share == 0
        self.parts += 0 < share < 1
        if share == 1:
            self.whole.append(seconds)

    @property
    def share(self) -> float:
        """Of the work that was not done."""
        return 1 - self.work / self.frames if self.frames else 0.0

    @property
    def speed_up(self) -> float:
        """Over frames that are all made as a whole, each in the time of the fastest; for the first buffers are made."""
        return self.frames * min(self.whole) / self.seconds if self.whole and self.seconds else 1.0

    def __str__(self) -> str:
        told = []
        if self.same or self.parts:
            told.append(
                f"{self.share:.0%} of the work was taken from the frame before ({self.same} of {self.frames} frames "
                f"were the same, {self.parts} in parts), {self.speed_up:.1f} times as fast as without"
            )
        if self.reason:
            told.append(f"frames that changed in parts were made as a whole, since {self.reason}")
        return "; ".join(told)


def any_channel(marks: np.ndarray) -> Changed:
    """bool (H, W, C) -> (H, W): channel by channel, since a reduction over a few values takes ten times as long."""
    found: Changed = marks[..., 0].copy()
    for number in range(1, marks.shape[2]):
        found |= marks[..., number]
    return found


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether equal values of both are equal frames."""
    return one.shape == other.shape and one.dtype == other.dtype


class Frames:
    """Upscales the frames of a film with ``model``, each as ``model.upscale`` does.

    A frame that is the one before keeps its result. Of one that changed in parts only what these can change is
    computed, where the network runs in convolutions of our own in float32 and looks at no means or masks of the whole
    frame; the result has the same bytes. Of the last frame the image and the result are kept, and where there is memory
    for it, what each layer made: the first frame that changed in parts is then made as a whole.

    ``tolerance``: levels, 0 to 255, up to which a pixel of which no value differs by more from what the last result
    shows is taken for that pixel; so noise is no change. ``reuse`` False: every frame is made as a whole.
    """

    def __init__(self, model: MaskGuidedSR, tolerance: int = 0, reuse: bool = True):
        self.model, self.reuse = model, reuse
        self.tolerance = check_whole_number("Frames: tolerance is a number of levels", tolerance, 0)
        if self.tolerance > MOST_TOLERANCE:
            raise InputError(f"Frames: tolerance is a number of levels, {MOST_TOLERANCE} at most, got {tolerance}")
        self.told = Reused()
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def compare(self) -> None:
        """Make the last frame once more as a whole, for ``told.speed_up``, where that takes little of all the time."""
        told = self.told
        if self._last is None or not (told.same or told.parts) or min(told.whole) > DEAREST * told.seconds:
            return
        started = time.perf_counter()
        self.model.upscale(self._last[0])
        told.whole.append(time.perf_counter() - started)

    def restart(self) -> None:
        """Make the next frame as a whole."""
        self._last = None

    def upscale(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> (sH, sW, 3), which cannot be written to. Parts are only made of such frames, but any array
        that ``MaskGuidedSR.upscale`` takes may come, and its memory may take the next frame."""
        started = time.perf_counter()
        if not isinstance(rgb, np.ndarray):
            raise InputError(f"Frames: a frame is an array, such as numpy.asarray(image), got {type(rgb).__name__}")
        last = self._last if self._last is not None and _alike(self._last[0], rgb) else None
        made, share = None, 1.0
        if self.reuse and last is not None:
            rgb, changed = self._changes(rgb, last[0])
            made, share = self._reused(rgb, changed, last[1])
        if made is None:
            made = cast(np.ndarray, self.model.upscale(rgb))
        if self.reuse and (last is None or made is not last[1]):
            self._last = rgb.copy(), made
            made.flags.writeable = False
        self.told.count(share, time.perf_counter() - started)
        return made

    def _changes(self, rgb: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, Changed | None]:
        """The frame as it is taken, and what changed of it; None for nothing."""
        differs = rgb != last
        if self.tolerance:
            tolerance = self.tolerance * (257 if rgb.dtype == np.uint16 else 1)
            differs &= np.maximum(rgb, last) - np.minimum(rgb, last) > tolerance
        if not differs.any():
            return rgb, None
        changed = differs if rgb.ndim == 2 else any_channel(differs)
        if self.tolerance:
            rgb = np.where(changed.reshape(*changed.shape, *[1] * (rgb.ndim - 2)), rgb, last)
        return rgb, changed

    def _reused(self, rgb: np.ndarray, changed: Changed | None, before: np.ndarray) -> tuple[np.ndarray | None, float]:
        """The result, or None where the whole frame is to be made, and the share of the work."""
        if changed is None:
            return before, 0.0
        plain = rgb.dtype == np.uint8 and rgb.shape[2:] == (3,)
        if not plain or min(changed.shape) < SIDE or changed.mean() > MOST_KEPT:
            return None, 1.0
        return self._in_parts(rgb, changed, before)

    @ordinary()
    def _in_parts(self, rgb: np.ndarray, changed: Changed, before: np.ndarray) -> tuple[np.ndarray | None, float]:
        def steps(plan: Plan, dense: bool) -> tuple[np.ndarray | None, float]:
            parts = plan.in_parts()
            if isinstance(parts, str):
                self.told.reason = parts
                return None, 1.0
            room = 0 if parts.kept else runner.budget.room(runner.held())
            share = parts.choose(changed, room)
            if share > (MOST_KEPT if parts.keeps else MOST):
                return None, 1.0
            made, whole = parts.run(image, before)
            return made, 1.0 if whole else share

        image, runner = shared(rgb), self.model._runner
        return self.model._run(image, steps)[0]
