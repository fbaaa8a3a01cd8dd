"""How long a step of a training is, and how fast it learns meanwhile."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.records import write_text
from .workers import Workers

SHORTEST_PERIOD = 20_000  # a schedule that a budget shortens has fewer periods, not shorter ones than this


@dataclass
class Schedule:
    """In each of ``periods`` equal periods a linear warm-up and one cosine (section 4.1)."""

    iterations: int = 600_000
    periods: int = 3
    warmup: int = 2_000  # iterations at the start of each period
    warmup_start: float = 4e-5  # learning rate at its start
    learning_rate: float = 4e-4  # and at its end
    final_learning_rate: float = 1e-7
    # "adam", the paper's, or "soap", with which small networks need far fewer iterations, at a rate of some 1e-2
    optimiser: str = "adam"
    memory: float = 0.999  # of the squares of gradients, Adam's second beta
    ema_decay: float = 0.0  # of the exponential moving average of the weights that is kept; 0: the weights themselves

    def scaled(self, iterations: int) -> Schedule:
        """The same shape in fewer iterations: warm-up in proportion, periods no shorter than SHORTEST_PERIOD."""
        periods = max(1, min(self.periods, iterations // SHORTEST_PERIOD))
        warmup = max(1, round(self.warmup * self.periods * iterations / (self.iterations * periods)))
        return replace(self, iterations=iterations, periods=periods, warmup=warmup)

    def rate(self, step: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        peak, final, start = self.learning_rate, self.final_learning_rate, self.warmup_start
        number = min(self.periods - 1, step * self.periods // max(1, self.iterations))
        first, last = (self.iterations * n // self.periods for n in (number, number + 1))
        step, length = step - first, last - first
        if step < self.warmup:
            return start + (peak - start) * step / self.warmup
        progress = (step - self.warmup) / max(1, length - self.warmup)
        return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


class Plan:
    """Iterations of the steps of a run, in a file of its folder: a run that goes on keeps those that it began with."""

    def __init__(self, file: Path):
        self.file = file

    def known(self) -> dict[str, int]:
        """Of the steps that were begun."""
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def iterations(self, step: str, count: Callable[[], int], workers: Workers | None = None) -> int:
        """Those of ``step``; where it is begun now, what ``count`` returns, which is kept."""
        workers = workers or Workers()
        known = self.known()
        workers.wait()  # until all have read what the first may write
        if step not in known:
            known[step] = count()
            if workers.first:
                write_text(self.file, json.dumps(known))
        return known[step]
