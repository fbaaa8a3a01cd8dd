"""The kernels stage of ``gpu.py``: every operator by backend, beside PyTorch eager and, asked for, ``torch.compile``.

    python bench/gpu_kernels.py --record FILE

FILE, which may hold rows of an earlier run, is written after each row. C = 64 in bfloat16, on which all targets depend,
comes first. Nothing here is about GPUs but ``event_times`` and ``captured``, so that the rest is tested on the CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import workloads
from gpu_process import whole_record
from workloads import Machine, Workload

from mga_kernels import ops
from mga_kernels.runtimes.cuda.capture import capture, may_capture
from mga_kernels.runtimes.cuda.transfers import Lane

CONFIGURATIONS = ((64, torch.bfloat16), (50, torch.float16), (50, torch.float32))
OURS = ("cuda", "triton", "cpu")
LONGEST, FEWEST = 2.0, 5  # seconds of one call over all rounds, for which a slow definition has fewer of them
Calls = dict[str, Callable[[], object]]
Times = dict[str, list[float]]


def event_times(calls: Calls, rounds: int) -> Times:
    """Milliseconds of each call on the GPU: variants take turns, and the L2 cache is overwritten before each.

    Overwriting also keeps the GPU busy while the host gets ahead, so that no kernel is timed by its launch. One that
    would take more than LONGEST seconds in all leaves after fewer rounds.
    """
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    events: dict[str, list] = {name: [] for name in calls}
    turns: dict[str, int] = {}
    for name, call in calls.items():
        call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        turns[name] = rounds_within(LONGEST, (time.perf_counter() - started) / 2, rounds)
    for number in range(rounds):
        for name, call in calls.items():
            if number >= turns[name]:
                continue
            flush.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            events[name].append((begin, end))
    torch.cuda.synchronize()
    return {name: [begin.elapsed_time(end) for begin, end in pairs] for name, pairs in events.items()}


def rounds_within(seconds: float, one: float, rounds: int) -> int:
    """Of ``rounds`` that take ``one`` second each, those that there is time for, and no fewer than FEWEST."""
    return max(min(rounds, FEWEST), min(rounds, int(seconds / max(one, 1e-9))))


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """What replays the kernels of ``call``; CannotCapture where they cannot be captured, and from then on ``call``.

    What the host does for a call (choosing a backend, checking, Triton's launcher) takes longer than the shortest
    kernels do, and an engine, which captures them, pays for it once. After a capture that failed PyTorch may not bear
    another one in this process, and the other rows are worth more than what the host adds to them.
    """
    if not may_capture():
        return call
    lane = Lane(torch.device("cuda"))
    lane.after_callers()
    with lane:
        for _ in range(3):
            call()
    torch.cuda.synchronize()

    def work() -> None:
        call()

    return capture(work, lane, None)


def host_times(calls: Calls, rounds: int) -> Times:
    """The same by the host's clock, for calls that return when they are done."""
    times: Times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - started) * 1e3)
    return times


def summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return {"median_ms": statistics.median(ordered), "p10_ms": ordered[tenth], "p90_ms": ordered[-1 - tenth]}


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, which within it has this value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def forced_backend(name: str) -> AbstractContextManager[None]:
    return variable("MGA_BACKEND", name)


def forced(workload: Workload, backend: str) -> Callable[[], object]:
    """The workload's call on one backend, after its check has passed there. Raises AssertionError if it has not."""

    def call() -> object:
        with forced_backend(backend):
            return workload.call()

    with forced_backend(backend):
        workload.call()
        if ops.last_backend(workload.op) != backend:
            raise AssertionError(f"{ops.last_backend(workload.op)} ran instead of {backend}")
        workload.check()
    return call


def compiled(workload: Workload, compiler: str) -> Callable[[], object]:
    """``torch.compile`` of the reference; its first call compiles."""
    torch.compiler.reset()
    function = torch.compile(workload.call, backend=compiler, dynamic=False)

    def call() -> object:
        with forced_backend("reference"):
            return function()

    call()
    return call


def variants(workload: Workload, device: str, compiler: str | None) -> tuple[Calls, dict[str, str]]:
    """The calls to time by name, "reference" being PyTorch eager; and for those that cannot be timed the reason.

    ``compiler`` is the backend of torch.compile, None for none of it: a compilation takes as long as all else of a row.
    """
    calls: Calls = {}
    left_out: dict[str, str] = {}
    for name, backend in ops.operators()[workload.op].backends.items():
        if backend.unavailable() is not None or ((name == "cpu") != (device == "cpu") and name != "reference"):
            continue
        try:
            call = forced(workload, name)
            calls[name] = captured(call) if device == "cuda" and name in OURS else call
        except Exception as error:  # one backend that fails must not cost the figures of the others
            left_out[name] = f"{type(error).__name__}: {error}"
    if compiler is None:
        return calls, left_out
    try:
        calls["torch.compile"] = compiled(workload, compiler)
    except Exception as error:
        left_out["torch.compile"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return calls, left_out


def race(workload: Workload, device: str, machine: Machine, rounds: int, clock: Callable, compiler: str | None) -> dict:
    calls, left_out = variants(workload, device, compiler)
    floor = workload.floor(machine) * 1e3
    row: dict[str, Any] = {"floor_ms": floor}
    if not may_capture():
        row["launched one by one"] = "a capture failed in this process"
    for name, times in clock(calls, rounds).items():
        row[name] = {**summary(times), "times_floor": statistics.median(times) / floor}
    if left_out:
        row["left out"] = left_out
    return row


def named(channels: int, dtype: torch.dtype) -> str:
    return f"C={channels} {str(dtype).removeprefix('torch.')}"


def measure_all(
    device: str,
    rounds: int,
    clock: Callable[[Calls, int], Times],
    configurations: tuple = CONFIGURATIONS,
    compiler: str | None = None,
    *,
    before: dict[str, Any] | None = None,
    only: Sequence[str] = (),
    save: Callable[[dict[str, Any]], None] = lambda result: None,
    until: float = math.inf,
) -> dict[str, Any]:
    """Rows by configuration, workloads and variants.

    ``before``: an earlier result, whose other rows stay. ``only``: operators whose names contain one of these.
    ``save`` is called after each row. After ``until``, by time.perf_counter, nothing is begun, and "not measured" says
    what was left.
    """
    result: dict[str, Any] = {key: value for key, value in (before or {}).items() if "=" in key}
    skipped = []
    # The rate of float32 is that of IEEE products, so none may be made of TF32, which would be below its floor.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for channels, dtype in configurations:
        machine = workloads.measure(device, dtype)
        key = named(channels, dtype)
        table = result[key] = result.get(key, {}) | {
            "copy_gb_per_s": machine.copy_bandwidth / 1e9,
            "matrix_tflops": machine.matrix_rate / 1e12,
        }
        for make in workloads.everything(device, dtype, channels):
            workload = make()
            name = f"{workload.op} {workload.case}"
            if only and not any(part in workload.op for part in only):
                continue
            if time.perf_counter() > until:
                skipped.append(f"{key}, {name}: no time was left")
                continue
            table[name] = row = race(workload, device, machine, rounds, clock, compiler)
            for variant, figures in row.items():
                print(f"{key:16} {workload.op:18} {workload.case:18} {variant:14} {figures}", flush=True)
            save(result)
    return result | ({"not measured": skipped} if skipped else {})


def measure_tiny(save: Callable[[dict[str, Any]], None] = lambda result: None) -> dict[str, Any]:
    """All of it on the CPU with small tensors and a compiler that generates nothing: figures without meaning."""
    small = {"HEIGHT": 48, "WIDTH": 64, "ROWS": 12, "COLUMNS": 16, "CELLS": 192, "COUNTS": {"some": 20}}
    before = {name: getattr(workloads, name) for name in small}
    try:
        for name, value in small.items():
            setattr(workloads, name, value)
        return measure_all("cpu", 2, host_times, ((8, torch.bfloat16),), "eager", save=save)
    finally:
        for name, value in before.items():
            setattr(workloads, name, value)


def best(row: dict[str, Any]) -> tuple[str, float]:
    """The fastest of our own backends and its milliseconds."""
    ours = {name: row[name]["median_ms"] for name in OURS if name in row}
    if not ours:
        return "none", float("inf")
    name = min(ours, key=lambda each: ours[each])
    return name, ours[name]


def targets(table: dict[str, Any]) -> list[dict[str, Any]]:
    """What the kernels are meant to reach at C = 64 in bfloat16, and whether they do; ``table`` is of that case.

    Nothing while one of the rows is missing.
    """
    needed = ["mask_head softmax-then-pool", "filter_and_select K=1000", "select_patches K=1000"]
    needed += [f"{op} {case}" for op in ("gather_patches", "paste_patches_") for case in ("all", "K=1000")]
    if any(name not in table for name in needed):
        return []
    head, choice = table["mask_head softmax-then-pool"], table["filter_and_select K=1000"]
    mask_floor = head["floor_ms"] + choice["floor_ms"]
    claims = [
        ("mask branch over its floor, at most", (best(head)[1] + best(choice)[1]) / mask_floor, 1.5, False),
        ("selection of 1000, microseconds, at most", best(table["select_patches K=1000"])[1] * 1e3, 15, False),
        ("filter and selection of 1000, microseconds, at most", best(choice)[1] * 1e3, 15, False),
    ]
    for op in ("gather_patches", "paste_patches_"):
        rows = table[f"{op} all"], table[f"{op} K=1000"]
        claims += [
            (f"{op} of all, share of the copy bandwidth, at least", rows[0]["floor_ms"] / best(rows[0])[1], 0.85, True),
            (f"{op} of 1000, microseconds, at most", best(rows[1])[1] * 1e3, 6, False),
        ]
    return [
        {"claim": claim, "measured": value, "wanted": wanted, "met": value >= wanted if more else value <= wanted}
        for claim, value, wanted, more in claims
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {named(*each): each for each in CONFIGURATIONS}
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--operators", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--configurations", nargs="+", choices=known, default=list(known))
    parser.add_argument("--compile", action="store_true", help="torch.compile of every row too")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no row is begun")
    options = parser.parse_args(arguments)

    def save(found: dict[str, Any]) -> None:
        whole_record(options.record, found)

    if options.device == "cpu":
        save(measure_tiny(save))
        return 0
    until = time.perf_counter() + options.seconds
    result = measure_all(
        *("cuda", options.rounds, event_times),
        *(tuple(known[name] for name in options.configurations), "inductor" if options.compile else None),
        before=json.loads(options.record.read_text()) if options.record.exists() else {},
        only=options.operators,
        save=save,
        until=until,
    )
    result["targets"] = targets(result.get("C=64 bfloat16", {}))
    for target in result["targets"]:
        print(target, flush=True)
    save(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
