"""The quick stage of ``gpu.py``: what answers most first, within the seconds that there are, and never twice.

Every step has the least time for which it is begun and the most that it gets, within what is left of ``--seconds``.
A step is recorded when it ends, with what failed in it, and skipped by the next call with the same commit and device,
as far as the record is in the folder of ``--out`` or in bench/results/. One for which no time was left runs then, and
behind all those one that was stopped, which begins anew. A machine that has nothing built builds again, first of all.
``--again STEP`` repeats one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_process import ROOT, Clock, StageFailed, run
from gpu_stages import (
    ENDING,
    ON_KERNELS,
    OPERATOR_TESTS,
    REGIONS,
    SKIPPED,
    STAGES,
    WHOLE,
    compile_together,
    compiled_kernels,
    together,
)

Found = dict[str, Any]
IN_TURN = ("rfdn", "span", "span-x4-regions", "rrdbnet", "srresnet", "compact", *REGIONS[1:], "fsrcnn", "pan", "rcan")
FIRST = "engine span-x4-regions 4K"  # with which every kind of question has a first answer
EAGER_WHOLE = ["W, graph, own convolutions", "W, graph, eager", "W, eager"]
EAGER_REGIONS = ["M, graph, own convolutions", "D, graph, own convolutions", "M, graph, eager", "D, eager"]
EAGER = ["M, graph, own convolutions", "M, graph, eager", "D, eager"]
COMPILED = ["M, graph, own convolutions", "M, graph, eager", "D, torch.compile", "M, graph, compiled"]
CLOSING = 3.0  # seconds kept for ending and recording


@dataclass(frozen=True)
class Step:
    """``run(options, seconds)`` gives what it found: what "failed", and "stopped" where it did not come to its end.

    ``stays``: whether what it made is there, where that is more than its record. ``usual``: seconds that it is
    estimated to take on 16 cores, until a GPU has run it.
    """

    least: float
    most: float
    run: Callable[[argparse.Namespace, float], Found]
    needs_gpu: bool = True
    stays: Callable[[], bool] = lambda: True
    usual: float = 0.0


def part(stage: str, closing: float = 0, **settings: Any) -> Callable[[argparse.Namespace, float], Found]:
    """A stage with these options, which may take ``closing`` seconds more than its limit."""

    def of(options: argparse.Namespace, seconds: float) -> Found:
        tiny = {"sizes": options.sizes} if options.tiny else {}
        given = argparse.Namespace(**{**vars(options), **settings, **tiny, "limit": max(1.0, seconds - closing)})
        found = STAGES[stage](given)
        options.save(stage, found)
        failed = found.get("failed", [])
        stopped = [line for line in failed if "no time was left" in line or "stopped after" in line]
        told = {"failed": failed, "stopped": stopped, "not run": found.get("not run")}
        return {name: what for name, what in told.items() if what}

    return of


def built() -> bool:
    return (ROOT / "mga_kernels/_C.so").exists() and bool(compiled_kernels(ROOT))


def smoke(options: argparse.Namespace, seconds: float) -> Found:
    told = run([sys.executable, str(ROOT / "bench/gpu_smoke.py"), "--device", options.device], seconds)
    return {"told": told.splitlines()[-12:]}


def compile_all(options: argparse.Namespace, seconds: float) -> Found:
    given = argparse.Namespace(**{**vars(options), "networks": IN_TURN, "sizes": ["4K"], "limit": seconds})
    return compile_together(given)


def pytest(files: list[str], only: str = "", **extra: str) -> Callable[[argparse.Namespace, float], Found]:
    """Tests by several processes; what each came to is written as it ends (see ``gpu_pytest.py``)."""

    def of(options: argparse.Namespace, seconds: float) -> Found:
        record = (options.out / "tests.part.jsonl").resolve()
        record.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "gpu_pytest"]
        command += [*together(), *(["-k", only] if only else []), *files]
        found: Found = {}
        try:
            run(command, seconds, MGA_TEST_RECORD=str(record), **extra)
        except StageFailed as failure:
            found["stopped" if "stopped after" in str(failure) else "failed"] = [str(failure)]
        found = results_of_tests(record) | found
        record.unlink(missing_ok=True)
        return found

    return of


def results_of_tests(record: Path) -> Found:
    """Counts, and each failure with its last line. A skipped test that needs a GPU is a failure here."""
    found: Found = {"passed": 0, "skipped": 0}
    wrong: dict[str, str] = {}
    for line in record.read_text().splitlines() if record.exists() else []:
        test = json.loads(line)
        unwanted = test["outcome"] == "skipped" and any(reason in test["told"] for reason in SKIPPED)
        if test["outcome"] == "failed" or unwanted:
            wrong[test["name"]] = test["told"]
        else:
            found[test["outcome"]] += 1
    return found | ({"wrong": wrong, "failed": [f"{len(wrong)} tests"]} if wrong else {})


def steps() -> dict[str, Step]:
    operators = [f"tests/test_{name}.py" for name in (*OPERATOR_TESTS, "backends")]
    graphs = [f"tests/test_cuda_{name}.py" for name in ("graph", "whole", "own", "regions", "classes", "mean")]
    triton = [f"tests/triton_{name}.py" for name in ("kernels", "pixels", "high_pass", "operators", "plans")]
    some = {"tests": ["cuda_device", "test_filter_and_select"]}
    bf16 = part("kernels", ENDING, configurations=["C=64 bfloat16"], compile=False)
    made = {
        "build": Step(20, 180, part("build"), stays=built, usual=35),
        "smoke": Step(15, 60, smoke, needs_gpu=False, usual=25),
        "operators": Step(30, 90, pytest(operators, ON_KERNELS), usual=35),
        "kernels of networks": Step(20, 120, compile_all, usual=50),
    }
    engines = {}
    for network in IN_TURN:
        contenders = EAGER_WHOLE if network in WHOLE else EAGER_REGIONS if network in REGIONS else EAGER
        run_one = part("engine", networks=[network], sizes=["4K"], contenders=contenders)
        usual = 30 if network == "rcan" else 18
        engines[f"engine {network} 4K"] = Step(25, 60, run_one, needs_gpu=False, usual=usual)
    first = next(iter(engines))  # a figure of the claim, should the steps behind it take all that is left
    made[first] = engines.pop(first)
    made["captured networks"] = Step(30, 100, pytest(["-m", "cuda", *graphs]), usual=45)
    made["kernels C=64 bfloat16"] = Step(45, 90, bf16, needs_gpu=False, usual=45)
    made |= engines
    for tool in ("memcheck", "racecheck"):
        made[tool] = Step(30, 120, part("sanitizer", tools=[tool], **some), usual=60)
    compiled = part("engine", networks=["rfdn"], sizes=["4K"], contenders=COMPILED)
    more = part("kernels", ENDING, configurations=["C=50 float16", "C=50 float32"], compile=False)
    return {
        **made,
        "triton": Step(60, 240, pytest(triton, TRITON_INTERPRET="0"), usual=120),
        "engine rfdn 4K compiled": Step(90, 300, compiled, usual=150),
        "kernels C=50": Step(60, 180, more, usual=90),
    }


STEPS = steps()


def estimate(last: str | None = None) -> float:
    """Seconds that the steps usually take, all or up to one of them."""
    names = list(STEPS)
    return sum(STEPS[name].usual for name in (names if last is None else names[: names.index(last) + 1]))


def run_steps(options: argparse.Namespace, clock: Clock) -> bool:
    """Those that have not ended yet, while there is time; whether all have ended and nothing failed."""
    report: Found = options.before.get("quick", {})
    # Those that were stopped would take the time of what has no answer yet, so they come last; they took "seconds".
    was_stopped = {name for name, found in report.items() if "seconds" in found and not found["ended"]}
    for name, step in sorted(STEPS.items(), key=lambda item: item[0] in was_stopped - {"build"}):
        if options.device == "cpu" and step.needs_gpu:
            continue
        if report.get(name, {}).get("ended") and step.stays() and name not in options.again:
            print(f"-- {name}: ended in an earlier call", flush=True)
            continue
        before, left = clock.left(), clock.left() - CLOSING
        if left < step.least:
            why = f"no time was left: {left:.0f} s of {step.least:g}"
            found = {**report.get(name, {}), "ended": False, "stopped": [why]}  # with what it told when it was stopped
        else:
            print(f"== {name}: at most {min(step.most, left):.0f} s", flush=True)
            found = attempt(step, options, min(step.most, left))
            found |= {"ended": "stopped" not in found, "seconds": round(before - clock.left(), 1)}
        report[name] = found
        options.save("quick", report)
        print(f"-- {name}: {json.dumps(found)}", flush=True)
    return all(found["ended"] and "failed" not in found for found in report.values())


def attempt(step: Step, options: argparse.Namespace, seconds: float) -> Found:
    """What a step found; any may fail in any way, and the next is still worth its time."""
    try:
        return step.run(options, seconds)
    except StageFailed as failure:
        return {"stopped" if "stopped after" in str(failure) else "failed": [str(failure)]}
    except Exception as error:
        return {"failed": [f"{type(error).__name__}: {error}"]}
