"""What was measured on this machine, kept in memory and in a small file, so that nothing is measured twice."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..notices import warn
from ..system.files import whole_file
from ..system.threads import Lock
from ..version import code_version

FORMAT = 1
TIMED = ("architectures", "engine.choice", "engine.timings", "networks", "ops", "runtimes")
CODE = tuple(f"mga_kernels.{name}" for name in TIMED)
FORCING = ("MGA_BACKEND", "MGA_CPU_ISA")  # variables that choose the kernels
RUNS = 3, 20  # at least and at most, of which the median counts
ENOUGH = 0.3  # seconds after which no more than the least number of runs is made
KEPT = 1000  # entries of the file, those written last


def cache_file() -> Path | None:
    """``timings.json`` in the folder MGA_CACHE, or else in the user's cache folder (XDG_CACHE_HOME, ~/.cache).

    None where the user has no home.
    """
    folder = os.environ.get("MGA_CACHE")
    if not folder:
        home = os.environ.get("XDG_CACHE_HOME", "")
        folder = os.path.join(home if os.path.isabs(home) else "~/.cache", "mga_kernels")
    try:
        return Path(folder).expanduser() / "timings.json"
    except RuntimeError:
        return None


def machine(device: torch.device) -> dict[str, Any]:
    """What else a time depends on: the code that computes, torch, processor, threads, what the environment forces."""
    facts: dict[str, Any] = {"code": code_version(*CODE), "torch": torch.__version__, "processor": _processor()}
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


class Timings:
    """Entries of named numbers by key; a key is a dict of what the numbers depend on."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, float]] = {}
        self._read = False
        self._lock = Lock()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._known())

    def get(self, key: dict[str, Any], names: Sequence[str]) -> dict[str, float] | None:
        """The entry, where it was measured before and has these numbers."""
        entry = self._known().get(_text(key))
        return entry if isinstance(entry, dict) and all(_is_time(entry.get(name)) for name in names) else None

    def put(self, key: dict[str, Any], entry: dict[str, float]) -> None:
        """Keep it, in the file too. Where that cannot be written a warning says so."""
        text, path = _text(key), cache_file()
        with self._lock:
            self._entries[text] = entry
            problem = "there is no home directory" if path is None else _save(path, text, entry)
        if problem is not None:
            warn(f"what was measured is not kept: {problem}; MGA_CACHE names another folder")

    def _known(self) -> dict[str, dict[str, float]]:
        with self._lock:
            if not self._read:
                path = cache_file()
                self._entries = ({} if path is None else _load(path)) | self._entries
                self._read = True
            return self._entries


def _save(path: Path, text: str, entry: dict[str, float]) -> str | None:
    """Write the file with this entry as its last; why it cannot be written, or None."""
    entries = _load(path)  # other processes may have added some
    entries.pop(text, None)
    entries = dict(list((entries | {text: entry}).items())[-KEPT:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            stream.write(json.dumps({"format": FORMAT, "entries": entries}, indent=1).encode())
    except (InputError, OSError) as error:
        return str(error)
    return None


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _load(path: Path) -> dict[str, dict[str, float]]:
    """Entries of the file; none, with a warning, where it is not one that this package writes."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            return {}
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:  # of another version, which is no fault
            return {}
        return dict(content["entries"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        warn(f"{path} cannot be read and is ignored; it will be written anew")
        return {}


TIMINGS = Timings()
