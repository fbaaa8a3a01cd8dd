"""Choosing for each image size, by what was measured on this machine: K for a given time, masked or dense."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, OutOfMemoryError
from ..networks import Config
from ..networks.amount import Amount
from ..notices import warn
from ..system.memory import bare
from ..system.threads import Lock
from .timings import TIMINGS, machine, measure

if TYPE_CHECKING:
    from .runner import Runner

MODES = ("masked", "dense", "auto")
NEAR = 0.03  # a time that is shorter than wanted by this share at most is near enough
TRIES = 5  # times that K is measured at most, besides K = 0

_log = logging.getLogger("mga_kernels")


class Choice:
    """How photographs of each size are run.

    ``mode`` "masked" is -M, "dense" -D, "auto" the faster of them at each size; a network that is not ``masked`` is
    "dense" without a Refine-Net. ``plans`` makes the plans that are measured; ``lock`` is held meanwhile.
    """

    def __init__(
        self,
        config: Config,
        amount: Amount,
        mode: str | None,
        masked: bool,
        plans: Runner,
        lock: Lock,
    ):
        if mode not in MODES:
            raise InputError(f"mode {mode!r} does not exist; choose one of {', '.join(MODES)}")
        if mode == "dense" and amount and amount != config.usual:
            raise InputError("mode 'dense' refines the whole image; leave out k, fraction, threshold and max_ms")
        self.config, self.amount, self.mode, self.masked = config, amount, mode, masked
        self._plans, self._lock = plans, lock
        self._k: dict[tuple[int, int], int] = {}
        self._compared: dict[tuple[int, int], tuple[float, float] | None] = {}

    def k(self, height: int, width: int) -> int:
        """Cells refined in an image of this size, or those that a threshold selects from; measured for ``max_ms``."""
        cells = math.prod(self._plans.grid(height, width))
        if self.amount.max_ms is None:
            return self.amount.count(cells, self.config.k)
        found = self._k.get((height, width))
        if found is None:  # only then is the lock waited for
            with self._lock:
                found = self._k.get((height, width))
                if found is None:
                    found = self._k[height, width] = self._k_of_time(height, width, cells, self.amount.max_ms)
        return found

    def dense(self, height: int, width: int) -> bool:
        """Whether -D is run on images of this size; measured for "auto" at the first question."""
        if self.mode != "auto" or self._by_picture:
            return self.mode == "dense" and self.masked
        times = self._times(height, width, allowed=True)
        return times is not None and times[0] > times[1]

    @property
    def _by_picture(self) -> bool:
        """Whether how much is refined is another amount for each image, and all of it takes no longer than -D does."""
        return self.amount.threshold is not None and self.amount.k is None and self.config.halos_shared

    def why(self, height: int, width: int) -> str:
        """What is run on images of this size and, where that was measured or measuring is of no use, why."""
        if self.mode == "dense":
            return "dense"
        k = self.k(height, width)
        what = f"K = {k}" if self.amount.threshold is None else f"K <= {k} above {self.amount.threshold:g}"
        times = None if self._by_picture else self._times(height, width, allowed=self.mode == "auto")
        if times is None:
            return what
        if math.isinf(times[1]):
            return f"{what}, for want of memory for dense"
        masked, dense = (f"{time:.4g} ms" for time in times)
        if times[0] <= times[1]:
            return f"{what}: {masked}, dense {dense}"
        if self.mode == "auto":
            return f"dense: {dense}, masked with {what} {masked}"
        return f'{what}: {masked}, though dense takes {dense}; mode="auto" runs the faster'

    def _times(self, height: int, width: int, allowed: bool) -> tuple[float, float] | None:
        """Milliseconds of -M and -D; None where K = 0, or where it is not known and measuring is not ``allowed``."""
        found = self._compared.get((height, width))
        if found is None and self.k(height, width):
            with self._lock if allowed else nullcontext():  # to look up what is in the cache, nobody need wait
                found = self._compared.get((height, width)) or self._compare(height, width, allowed)
                self._compared[height, width] = found
        return found

    def _compare(self, height: int, width: int, allowed: bool) -> tuple[float, float] | None:
        if not allowed and not TIMINGS:
            return None
        k = self.k(height, width)
        key = self._key("masked and dense", height, width) | {"k": k}
        entry = TIMINGS.get(key, ("masked_ms", "dense_ms"))
        if entry is None and not allowed:
            return None
        if entry is None:
            try:
                masked, dense = self._measured(height, width, k, True)
            except OutOfMemoryError:  # -M takes less
                return 0.0, math.inf
            entry = {"masked_ms": masked, "dense_ms": dense}
            TIMINGS.put(key, entry)
        times = entry["masked_ms"], entry["dense_ms"]
        if times[0] > times[1]:
            what = "dense is run" if self.mode == "auto" else 'mode="auto" would run it dense'
            _log.info("%dx%d: masked takes %.4g ms, dense %.4g ms; %s", width, height, *times, what)
        return times

    def _k_of_time(self, height: int, width: int, cells: int, limit: float) -> int:
        key = self._key("largest K", height, width) | {"max_ms": limit}
        entry = TIMINGS.get(key, ("k", "ms", "ms_at_0"))
        if entry is None:

            def time_of(k: int) -> float:
                try:
                    return self._measured(height, width, k, False)[0]
                except OutOfMemoryError:
                    if k == 0:
                        raise
                    return math.inf

            k, times = largest_k(time_of, self.config.k, cells, limit)
            entry = {"k": k, "ms": times[k], "ms_at_0": times[0]}
            TIMINGS.put(key, entry)
            _log.info("%dx%d: K = %d takes %.4g ms of %.4g", width, height, k, times[k], limit)
        if entry["ms_at_0"] > limit:
            warn(
                f"max_ms = {limit:g}: an image of {width}x{height} takes {entry['ms_at_0']:.4g} ms on this machine "
                "even with K = 0, which is used; allow more time or use a smaller image"
            )
        return min(int(entry["k"]), cells)

    def _measured(self, height: int, width: int, k: int, dense: bool) -> list[float]:
        """Milliseconds of -M of ``k`` cells, in smaller tiles where memory runs out, and, if ``dense``, of -D."""
        while True:
            try:
                return self._measured_once(height, width, k, dense)
            except OutOfMemoryError as problem:
                error = bare(problem)
            if dense or not self._plans.shrink_measured(height, width, k):
                raise error

    def _measured_once(self, height: int, width: int, k: int, dense: bool) -> list[float]:
        image = _noise(height, width)
        with self._plans.memory_errors(height, width):
            plan = self._plans.make_plan(height, width, k, dense)
            image = image if plan.pixel == torch.uint8 else image / 255
            masked = [lambda: plan.run(image)]
            return measure(*masked, lambda: plan.dense(image)) if dense else measure(*masked)

    def _key(self, what: str, height: int, width: int) -> dict[str, object]:
        facts = {"model": self.config.to_json(), "plan": self._plans.description, **self._plans.settings}
        return {"what": what, "height": height, "width": width} | facts | machine(self._plans.device)


def _noise(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def largest_k(time_of: Callable[[int], float], first: int, cells: int, limit: float) -> tuple[int, dict[int, float]]:
    """The largest K up to ``cells`` for which ``time_of(K)`` is at most ``limit``, and all times that were taken.

    After K = 0 and ``first`` (> 0), each further K is where a line meets the limit: through what is known, since time
    is nearly a line in K; once there is a K that is too large, from the largest that is not. Where neighbours share
    halos the first cells cost most, and such a line lies too low, so what it finds after it was too large once is
    halved.
    The K that is returned was measured and met it, unless it is 0.
    """
    times = {0: time_of(0)}
    guess = min(first, cells)
    while times[0] < limit and guess and len(times) <= TRIES:
        times[guess] = time_of(guess)
        fits, fails = _bracket(times, cells, limit)
        if fails - fits <= 1 or times[fits] >= (1 - NEAR) * limit:
            break
        found = min(max(_meeting(times, fits, fails, limit), fits + 1), fails - 1)
        too_large = guess == fails and len(times) > 2  # as a line had found it
        guess = fits + max(1, (found - fits) // 2) if too_large else found
    return _bracket(times, cells, limit)[0], times


def _bracket(times: dict[int, float], cells: int, limit: float) -> tuple[int, int]:
    """The largest K that met the limit below the smallest that did not, and the latter."""
    fails = min((k for k, time in times.items() if k and time > limit), default=cells + 1)
    return max(k for k in times if k < fails), fails


def _meeting(times: dict[int, float], fits: int, fails: int, limit: float) -> int:
    """K at which the line through the times around the limit meets it, or, while all met it, through all of them."""
    known = [(k, time) for k, time in times.items() if math.isfinite(time)]
    if len(known) < 2:
        return max(times) // 4
    if math.isfinite(times.get(fails, math.inf)):
        known = [(k, times[k]) for k in (fits, fails)]
    slope, start = np.polyfit([k for k, _ in known], [time for _, time in known], 1)
    if slope <= 0:  # noise was larger than what the cells cost
        return 4 * fits
    # A little below the limit: what is measured there has to meet it.
    return int(((1 - NEAR / 3) * limit - start) / slope)
