"""``pytest bench/ --benchmark-only``: every operator on every backend, checked first, with its floor beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rivals import Race
from workloads import Machine, Workload, measure, synchronize

from mga_kernels import ops

VARIANTS = [("reference", "cpu"), ("cpu", "cpu"), ("reference", "cuda"), ("cuda", "cuda"), ("triton", "cuda")]


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    """The measured rates of each device, filled as devices are met."""
    return {}


@pytest.fixture(params=VARIANTS, ids=lambda variant: f"{variant[0]} on {variant[1]}")
def run(
    request: pytest.FixtureRequest, benchmark: Callable, machines: dict[str, Machine], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Workload], str], None]:
    """``run(make, case)``: check the workload, time it, and note floor and ratio in the benchmark's extra_info."""
    backend, device = request.param

    def timed(make: Callable[..., Workload], case: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")
        with torch.no_grad():
            workload = make(case, device)
            backends = ops.operators()[workload.op].backends
            reason = backends[backend].unavailable() if backend in backends else f"there is no {backend} backend"
            if reason is not None:
                pytest.skip(f"{workload.op}: {reason}")
            monkeypatch.setenv("MGA_BACKEND", backend)
            workload.check()
            assert ops.last_backend(workload.op) == backend

            def once() -> None:
                workload.call()
                synchronize(device)

            benchmark.pedantic(once, rounds=9, warmup_rounds=2)
        machine = machines.get(device) or machines.setdefault(device, measure(device))
        floor = workload.floor(machine)
        benchmark.extra_info.update(
            device=device,
            floor_ms=round(floor * 1e3, 4),
            times_floor=round(benchmark.stats.stats.median / floor, 2),
            bytes_moved=workload.bytes_moved,
            copy_gb_per_s=round(machine.copy_bandwidth / 1e9, 1),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
        )

    return timed


LINES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[LINES]:
        terminalreporter.section("variants that took turns, medians")
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)


@pytest.fixture
def printed(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the session."""
    return request.config.stash[LINES]


@pytest.fixture
def race(printed: list[str], benchmark: Callable, machines: dict[str, Machine]) -> Callable[..., None]:
    """``race(title, calls, ours, bytes_moved, operations)``: on the CPU, in turns; printed at the end of the session.

    The benchmark's own time is that of one round of all variants; each variant's is in its extra_info.
    """

    def run_race(
        title: str, calls: dict[str, Callable], ours: str, bytes_moved: int, operations: int = 0, rounds: int = 5
    ) -> None:
        machine = machines.get("cpu") or machines.setdefault("cpu", measure("cpu"))
        with torch.no_grad():
            Race(calls).round()
            contest = Race(calls)
            benchmark.pedantic(contest.round, rounds=rounds)
        facts = contest.report(ours, bytes_moved, operations, machine)
        benchmark.extra_info.update(facts, threads=torch.get_num_threads(), torch=torch.__version__)
        printed.extend([title, *(f"  {name:45} {value}" for name, value in facts.items())])

    return run_race
