"""What was measured on this machine, kept in memory and in a small file, so that nothing is measured twice."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..notices import warn
from ..system.kept import Kept
from ..version import code_version

TIMED = ("architectures", "engine.choice", "engine.timings", "networks", "ops", "runtimes")
CODE = tuple(f"mga_kernels.{name}" for name in TIMED)
FORCING = ("MGA_BACKEND", "MGA_CPU_ISA")  # variables that choose the kernels
RUNS = 3, 20  # at least and at most, of which the median counts
ENOUGH = 0.3  # seconds after which no more than the least number of runs is made


def machine(device: torch.device) -> dict[str, object]:
    """What else a time depends on: the code that computes, torch, processor, threads, what the environment forces."""
    facts: dict[str, object] = {"code": code_version(*CODE), "torch": torch.__version__, "processor": _processor()}
    facts |= {name: os.environ[name] for name in FORCING if os.environ.get(name)}
    if device.type == "cuda":
        return facts | {"device": torch.cuda.get_device_name(device)}
    return facts | {"threads": torch.get_num_threads(), "vectors": torch.backends.cpu.get_cpu_capability()}


def _processor() -> str:
    """Name, family and model, because a name alone can be as little as that of the maker."""
    wanted = ("model name", "cpu family", "model", "stepping")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return " ".join(facts[name] for name in wanted if name in facts) or platform.processor() or platform.machine()


def measure(*calls: Callable[[], object]) -> list[float]:
    """Milliseconds that each call takes: the median of some runs after one to warm up, the calls in turn."""
    for call in calls:
        call()
    taken: list[list[float]] = []
    while len(taken) < RUNS[0] or (len(taken) < RUNS[1] and sum(map(sum, taken)) < 1000 * ENOUGH):
        taken.append([_milliseconds(call) for call in calls])
    return [statistics.median(times) for times in zip(*taken, strict=True)]


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


class Timings(Kept):
    """Entries of named numbers."""

    def __init__(self) -> None:
        super().__init__("timings.json")

    def get(self, key: Mapping[str, object], names: Sequence[str]) -> dict[str, float] | None:
        """The entry, where it was measured before and has these numbers."""
        entry = self.find(key)
        return entry if isinstance(entry, dict) and all(_is_time(entry.get(name)) for name in names) else None

    def put(self, key: Mapping[str, object], entry: Mapping[str, float]) -> None:
        """Keep it, in the file too. Where that cannot be written a warning says so."""
        problem = self.keep(key, entry)
        if problem is not None:
            warn(f"what was measured is not kept: {problem}; MGA_CACHE names another folder")


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


TIMINGS = Timings()
