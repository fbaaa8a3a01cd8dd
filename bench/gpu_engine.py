"""The engine stage of ``gpu.py``: whole photographs on a GPU, bytes to bytes, ours against what PyTorch has.

    python bench/gpu_engine.py NETWORK SIZE --record FILE

One network at one size. Of mask-guided ones -M runs in a CUDA graph, in our own convolutions or with its halves eager
or compiled; -D is what a user has without us: channels-last float16, eager or by torch.compile with max-autotune, whose
CUDA graphs are on. Of those without a mask (SPAN, Compact, RRDBNet) both run the whole network, W. Of those that refine
regions (compact-regions) -M refines 30 % of the cells, or the tenth above a threshold (span-x4-regions, the shipped
model); -D is the large network alone, which ours runs, too. All get the same transfers through pinned memory. A
contender is checked against -M, -D or W in float32 before it is timed; one that fails is recorded with its error. FILE
is written after each contender, so that a process stopped for want of time has lost only what it was making.
``--compile-only`` makes the plan in our own convolutions and nothing else, so that many such processes compile at a
time what those that measure find in Triton's cache. ``--device cpu`` runs the same code uncaptured, for a test of it.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contenders import Decomposed
from gpu_cases import SIZES, Case, make_case
from gpu_kernels import host_times, summary
from gpu_process import whole_record
from torch import Tensor, nn

from mga.evaluation.metrics import psnr_rgb
from mga_kernels import ops
from mga_kernels.modes import exact_float32
from mga_kernels.networks import MaskGuidedNetwork, RegionNetwork, WholeNetwork
from mga_kernels.ops import image_to_input, output_to_image
from mga_kernels.runtimes.cuda.capture import may_capture
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnPlanner
from mga_kernels.runtimes.cuda.replayed import ReplayedPlan
from mga_kernels.runtimes.cuda.transfers import host_bytes

LEAST_AGREEMENT = 33.0  # dB against float32: as for whole images on the CPU
IN_A_ROW = 30  # images of a throughput figure
PROFILED = 3
MODE = "max-autotune"  # of torch.compile
COMPILE: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs"}  # of ours, whose graph is its own
Run = Callable[[Tensor], Tensor]

OURS = {  # whether the modules of the network are compiled; None for convolutions of our own
    "M, graph, own convolutions": None,
    "M, graph, eager": False,
    "M, graph, compiled": True,
}
OURS_WHOLE = {
    "W, graph, own convolutions": None,
    "W, graph, eager": False,
    "W, graph, compiled": True,
}
OURS_REGIONS = {
    "M, graph, own convolutions": None,
    "D, graph, own convolutions": None,
    "M, graph, eager": False,
}
STOCK = {f"{function}, {how}": mode for function in "DW" for how, mode in (("eager", None), ("torch.compile", MODE))}
PLANS = OURS | OURS_WHOLE | OURS_REGIONS
# What takes longest to make comes last.
CONTENDERS = ("M, graph, own convolutions", "M, graph, eager", "D, eager", "D, torch.compile", "M, graph, compiled")
OF_REGIONS = (*OURS_REGIONS, "D, eager", "D, torch.compile")
OF_WHOLE = ("W, graph, own convolutions", "W, graph, eager", "W, eager", "W, torch.compile", "W, graph, compiled")


def contenders_of(network: Any) -> tuple[str, ...]:
    if isinstance(network, RegionNetwork):
        return OF_REGIONS
    return CONTENDERS if network.masked else OF_WHOLE


def stock(case: Case, mode: str | None, dtype: torch.dtype) -> Run:
    """-D or W as PyTorch runs it, channels-last; ``mode`` of torch.compile, None for eager."""
    network = copy.deepcopy(case.network)
    module: nn.Module = Decomposed(network) if isinstance(network, MaskGuidedNetwork) else Unclamped(alone(network))
    module.eval().to(case.device, dtype)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if mode is not None:
        module.compile(dynamic=False, **({"mode": mode} if case.device.type == "cuda" else COMPILE))
    given = host_bytes(case.device, *case.image.shape)
    value_range = getattr(case.network, "value_range", 1.0)

    def run(image: Tensor) -> Tensor:
        given.copy_(image)
        on_device = given[None].to(case.device, non_blocking=True)
        output = module(image_to_input(on_device, *image.shape[:2], value_range, dtype))  # type: ignore[call-arg]
        picture = output_to_image(output, *output.shape[2:], 1 / value_range)[0]  # type: ignore[call-arg]
        result = host_bytes(case.device, *picture.shape)
        result.copy_(picture, non_blocking=True)
        if case.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return result

    return run


def alone(network: MaskGuidedNetwork | WholeNetwork | RegionNetwork) -> Any:
    """The network that runs over all of an image: of two, that which refines."""
    return network.refine if isinstance(network, RegionNetwork) else network


class Unclamped(nn.Module):
    """A whole network from (1, 3, H, W) in [0, 1] to (1, 3, sH, sW)."""

    def __init__(self, network: WholeNetwork):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.unclamped(image)


def exact(case: Case) -> tuple[dict[str, Tensor], int]:
    """The pictures of -M and -D, or of W, in float32 on the device, kernel by kernel; and how many cells -M refined."""
    planner = CudaGraphPlanner(case.network, case.device, torch.float32, captured=False)
    plan = planner.plan(*case.size, case.k)
    plan.threshold = case.threshold
    with exact_float32:
        if not case.network.masked:
            return {"W": plan.run(case.image)}, 0
        pictures = {"M": plan.run(case.image)}
        return pictures | {"D": stock(case, None, torch.float32)(case.image)}, plan.chosen()


def own_plan(case: Case, compiled: bool | None, function: str = "M") -> tuple[ReplayedPlan, str]:
    """A plan that has run, and what it runs in. ``compiled``: the network's modules; None for convolutions of our own,
    which are in float16.

    ``function``: D for the network alone that refines regions.
    """
    network, k = (alone(case.network), 0) if function == "D" else (case.network, case.k)
    planner: CudaGraphPlanner | OwnPlanner | str
    if compiled is None:
        planner = OwnPlanner.of(network, case.device)
    else:
        planner = CudaGraphPlanner(network, case.device, case.dtype)
        if compiled:
            for module in filter(None, (planner.network.front, planner.trunk, planner.network.back)):
                module.compile(**COMPILE, dynamic=False)
    if isinstance(planner, str):
        raise RuntimeError(planner)
    plan = planner.plan(*case.size, k)
    plan.threshold = case.threshold
    plan.warm()
    return plan, planner.description


def checked(name: str, run: Run, case: Case, wanted: dict[str, Tensor]) -> float | None:
    """PSNR in dB against float32, None where equal. Raises AssertionError for another picture."""
    run(case.image.flip(0))  # so that a result left over from before would be another one
    value = psnr_rgb(run(case.image).numpy(), wanted[name[0]].numpy(), 0)
    assert value >= LEAST_AGREEMENT, f"another picture than in float32: {value:.1f} dB"
    return None if math.isinf(value) else round(value, 2)


def in_a_row(plan: ReplayedPlan, image: Tensor, count: int) -> float:
    """Images per second with transfers, of which some hide behind the computation of the image before."""
    plan.run(image)
    started = time.perf_counter()
    pending = plan.begin(image)
    for _ in range(count - 1):
        following = plan.begin(image)
        plan.finish(pending)
        pending = following
    plan.finish(pending)
    return count / (time.perf_counter() - started)


def host_waits(plan: ReplayedPlan, image: Tensor) -> dict[str, Any]:
    """What the host calls of CUDA for an image, and whether torch saw it wait anywhere but for the result."""
    plan.run(image)
    if plan.device.type != "cuda":
        return {"not run": "needs a GPU"}
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = plan.begin(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    plan.finish(pending)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(PROFILED):
            plan.run(image)
    calls = Counter(event.name for event in profile.events() if event.name.startswith(("cuda", "cu")))
    launches = sum(count for name, count in calls.items() if "GraphLaunch" in name)
    return {
        "synchronisation before the result": "none",  # it would have raised
        "graph launches per image": launches / PROFILED,
        "calls per image": {name: count / PROFILED for name, count in sorted(calls.items())},
    }


class Session:
    """What was made so far of one case, timed together, and the record of it."""

    def __init__(self, case: Case, record: Path, rounds: int):
        self.case, self.path, self.rounds = case, record, rounds
        self.wanted, refined = exact(case)
        self.runs: dict[str, Run] = {}
        height, width = case.size
        self.record: dict[str, Any] = {
            "network": case.network.config.network,
            "lr": [width, height],
            "k": refined,
            "dtype": str(case.dtype).removeprefix("torch."),
            "gmacs": {key: round(v, 3) for key, v in case.work(refined).items()},
            "contenders": {},
            "failed": {},
        }

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole_record(self.path, self.record)

    def add(self, name: str) -> None:
        """Make a contender, check it, and let all that there are take turns again."""
        self.record["making"] = name
        self.write()
        started = time.perf_counter()
        try:
            row = self._made(name)
            row["seconds to make"] = round(time.perf_counter() - started, 2)
        except Exception as error:  # a contender may fail in any way, and the others are still worth their time
            self.runs.pop(name, None)
            lines = str(error).strip().splitlines() or [""]
            self.record["failed"][name] = f"{type(error).__name__}: {lines[0][:300]}"
        else:
            self.record["contenders"][name] = row
            self._race()
        del self.record["making"]
        self.write()

    def _made(self, name: str) -> dict[str, Any]:
        if name in STOCK:
            self.runs[name] = stock(self.case, STOCK[name], self.case.dtype)
            return {"psnr against float32": checked(name, self.runs[name], self.case, self.wanted)}
        plan, how = own_plan(self.case, PLANS[name], name[0])
        self.runs[name] = plan.run
        if plan.wants_graph and not may_capture():  # what it takes is worth knowing, and is no graph's time
            self.record["failed"][name] = "not captured, here or for one before it: timed kernel by kernel"
        row: dict[str, Any] = {"runs in": how, "psnr against float32": checked(name, plan.run, self.case, self.wanted)}
        row["backends"] = {op: ops.last_backend(op) for op in ops.operators() if ops.last_backend(op)}
        row["host"] = host_waits(plan, self.case.image)
        row["images per second"] = round(in_a_row(plan, self.case.image, min(IN_A_ROW, self.rounds)), 2)
        return row

    def _race(self) -> None:
        times = host_times({name: lambda run=run: run(self.case.image) for name, run in self.runs.items()}, self.rounds)
        for name, taken in times.items():
            self.record["contenders"][name] |= summary(taken)
        self.record["claim"] = claim(self.record)


def claim(record: dict[str, Any]) -> dict[str, Any] | None:
    """Wall-clock of our fastest over that of the fastest stock network, beside the ratio of their operations.

    That is -M over -D, or a network without a mask over itself.
    """
    failed = record["failed"]  # what was timed all the same is no graph
    medians = {name: row["median_ms"] for name, row in record["contenders"].items() if name not in failed}
    both = [name for name in medians if name in PLANS], [name for name in medians if name in STOCK]
    if not all(both):
        return None
    ours, theirs = (min(names, key=lambda name: medians[name]) for names in both)
    time_ratio, work_ratio = medians[ours] / medians[theirs], record["gmacs"][ours[0]] / record["gmacs"][theirs[0]]
    us, them = ("ours", "stock") if ours[0] == theirs[0] else (ours[0], theirs[0])
    return {
        us: ours,
        them: theirs,
        f"{us}/{them} time": round(time_ratio, 4),
        f"{us}/{them} GMACs": round(work_ratio, 4),
        "met": time_ratio <= work_ratio,
        f"{them} compiled": f"{theirs[0]}, torch.compile" in medians,
    }


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--record", type=Path)
    parser.add_argument(
        "--compile-only", action="store_true", help="the kernels of our own convolutions, without times"
    )
    known = tuple(dict.fromkeys((*CONTENDERS, *OF_WHOLE, *OF_REGIONS)))
    parser.add_argument("--contenders", nargs="*", default=[], metavar="NAME", help=f"of {'; '.join(known)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    unknown = set(options.contenders) - set(known)
    if unknown:
        parser.error(f"there is no contender {unknown.pop()!r}; choose from {'; '.join(known)}")
    if (options.record is None) != options.compile_only:
        parser.error("either --record or --compile-only has to be given")
    if options.device == "cpu":
        COMPILE.pop("mode", None)
        COMPILE["backend"] = "eager"  # traced, and nothing generated
        torch.set_num_threads(1)  # small work, which would mostly wait for other threads
    torch.manual_seed(0)
    case = make_case(options.network, options.size, options.device)
    if options.compile_only:
        for function in ("M", "D") if isinstance(case.network, RegionNetwork) else ("M",):
            own_plan(case, None, function)
        return 0
    session = Session(case, options.record, options.rounds)
    asked = [name for name in contenders_of(case.network) if not options.contenders or name in options.contenders]
    for name in asked:
        # On a CPU the definition would stand for the kernel, in float64: minutes that tell nothing.
        if options.device == "cuda" or PLANS.get(name, True) is not None:
            session.add(name)
            row = session.record["contenders"].get(name) or session.record["failed"].get(name)
            print(f"{options.network} {options.size} {name}: {row}", flush=True)
    print(f"{options.network} {options.size}: {session.record.get('claim')}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
