"""``pytest bench/ --benchmark-only``: every operator on every backend, checked first, with its floor beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
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
        with torch.inference_mode():
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
