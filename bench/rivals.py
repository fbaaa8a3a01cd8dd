"""Variants of one computation that take turns, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from workloads import Machine


@dataclass
class Race:
    """``calls``: variants by name; ``times``: the seconds that each of them took, round by round."""

    calls: dict[str, Callable[[], object]]
    times: dict[str, list[float]] = field(default_factory=dict)

    def round(self) -> None:
        for name, call in self.calls.items():
            started = time.perf_counter()
            call()
            self.times.setdefault(name, []).append(time.perf_counter() - started)

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])

    def report(self, ours: str, bytes_moved: int, operations: int, machine: Machine) -> dict[str, float]:
        """Milliseconds and ratios of medians; the floors are those of ``workloads``."""
        facts = {f"{name} ms": round(self.median(name) * 1e3, 3) for name in self.calls}
        facts |= {f"{name} min ms": round(min(times) * 1e3, 3) for name, times in self.times.items()}
        for name in self.calls:
            if name != ours:
                facts[f"{name} / {ours}"] = round(self.median(name) / self.median(ours), 2)
        facts["memory floor ms"] = round(bytes_moved / machine.copy_bandwidth * 1e3, 3)
        facts[f"{ours} / memory floor"] = round(self.median(ours) * machine.copy_bandwidth / bytes_moved, 2)
        if operations:
            facts[f"{ours} / matmul of as many operations"] = round(
                self.median(ours) * machine.matrix_rate / operations, 2
            )
        return facts
