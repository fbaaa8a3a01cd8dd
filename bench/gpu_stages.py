"""The stages of ``gpu.py``, each of which takes its options and returns what it found.

What needs the GPU runs in a process of its own: a kernel that reads where it may not ends that, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_process import ROOT, StageFailed, Stopped, build_environment, run, toolkit, whole_record

OPERATOR_TESTS = [
    *("select_patches", "gather_patches", "paste_patches", "mask_head", "dynamic_filter", "filter_and_select"),
    *("image_to_input", "output_to_image", "cuda_device", "cuda_against_triton"),
    "high_pass",
]
OTHER_TESTS = ["cuda_graph", "cuda_whole", "cuda_own", "triton_kernels", "backends", "native_build", "host", "networks"]
OTHER_TESTS += ["cuda_regions", "cuda_classes", "cuda_mean", "engine"]
TESTS = [f"tests/test_{name}.py" for name in (*OPERATOR_TESTS, *OTHER_TESTS)]
SANITIZED = [f"tests/test_{name}.py" for name in OPERATOR_TESTS]
BUILD = [sys.executable, "setup.py", "build_ext", "--inplace", "--parallel", "3"]  # its three libraries at a time
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
SANITIZER_TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
CANNOT_SANITIZE = "Device not supported"  # what the tool says where the system's kernel does not let it at the GPU
ENDING = 20.0  # seconds that a stage which looks at the clock itself may take beyond its limit
ON_KERNELS = "cuda and not compile and not opcheck and not fake"
WHOLE = ["span", "compact", "rrdbnet"]  # networks of the engine stage without a mask, as ``gpu_cases.WHOLE`` has them
REGIONS = ["span-x4-regions", "compact-regions", "msrresnet-regions"]  # and of those that refine regions
SKIPPED = "needs an NVIDIA GPU", "built without CUDA kernels"  # reasons for which no test may be skipped here


def compiled_kernels(root: Path) -> dict[str, Any]:
    """Registers and spills of every file of kernels, from what nvcc said in the build under ``root``."""
    kernels = {}
    for log in sorted(root.glob("build/temp*/cuda-release/_C/**/*.cu.o.log")):
        text = log.read_text()
        kernels[log.name.removesuffix(".o.log")] = {
            "registers": sorted({int(n) for n in re.findall(r"Used (\d+) registers", text)}),
            "spilled bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill stores", text)),
        }
    return kernels


def build(options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    told = build_environment()
    run(BUILD, options.limit, **told)
    kernels = compiled_kernels(ROOT)
    if not kernels:
        raise StageFailed("the build left no report of its CUDA kernels under build/")
    return {"seconds": round(time.perf_counter() - started, 1), "told": told, "kernels": kernels}


def tests(options: argparse.Namespace) -> dict[str, Any]:
    told = {name: value for name, value in build_environment().items() if name == "CUDA_HOME"}
    output = run([*PYTEST, *together(), *chosen(TESTS, options)], options.limit, **told)
    if any(reason in output for reason in SKIPPED):
        raise StageFailed("CUDA tests were skipped; see their reasons above")
    return {"summary": output.strip().splitlines()[-1]}


def together() -> list[str]:
    """Tests by several processes, since most of their time goes to compilers and to starting."""
    return [] if find_spec("xdist") is None else ["-n", str(min(12, os.cpu_count() or 1)), "--dist", "load"]


def chosen(files: list[str], options: argparse.Namespace) -> list[str]:
    return [file for file in files if not options.tests or any(name in file for name in options.tests)]


def sanitizer(options: argparse.Namespace) -> dict[str, Any]:
    beside_nvcc = (toolkit() or Path("/nowhere")) / "bin/compute-sanitizer"
    tool = shutil.which("compute-sanitizer") or (str(beside_nvcc) if beside_nvcc.exists() else None)
    if tool is None:
        return {"not run": "compute-sanitizer is not installed"}
    summaries: dict[str, Any] = {
        k: v for k, v in options.before.get("sanitizer", {}).items() if k not in ("failed", "not run")
    }
    for name in options.tools:
        command = [tool, "--tool", name, "--error-exitcode", "86", "--target-processes", "all", *PYTEST, "-k"]
        wanted = f"{ON_KERNELS} and not graph"
        files = chosen(SANITIZED, options)
        try:
            output = run([*command, wanted, *files], options.limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        except StageFailed as failure:
            if CANNOT_SANITIZE not in failure.output:
                raise
            return {**summaries, "not run": f"compute-sanitizer cannot run here: {CANNOT_SANITIZE}"}
        told = [line for line in output.splitlines() if "SUMMARY" in line or " passed" in line]
        summaries[name] = {"files": len(files), "told": told}
        options.save("sanitizer", summaries)
    return summaries


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """In a child, whose rows count even where it was stopped or crashed."""
    record = options.out / "kernels.part.json"
    before = options.before.get("kernels", {}) | left_behind(record)
    whole_record(record, {key: value for key, value in before.items() if "=" in key})
    command = [sys.executable, str(ROOT / "bench/gpu_kernels.py"), "--record", str(record)]
    command += ["--device", options.device, "--rounds", str(options.rounds), "--seconds", str(options.limit)]
    command += ["--operators", *options.operators] if options.operators else []
    command += ["--configurations", *options.configurations] if options.configurations else []
    command += ["--compile"] if options.compile else []
    ended = None
    try:
        run(command, options.limit + ENDING)
    except StageFailed as failure:
        ended = str(failure)
    result = left_behind(record)
    wrong = wrong_backends(result) + result.pop("not measured", []) + ([ended] if ended else [])
    if wrong:
        result["failed"] = wrong
    return result


def left_behind(record: Path) -> dict[str, Any]:
    """What a child wrote, of this run or one that was cut short; the file is gone then."""
    found = json.loads(record.read_text()) if record.exists() else {}
    record.unlink(missing_ok=True)
    return found


def wrong_backends(result: dict[str, Any]) -> list[str]:
    """Our backends that gave other values or failed."""
    return [
        f"{name} on {backend}: {reason}"
        for table in result.values()
        if isinstance(table, dict)
        for name, row in table.items()
        if isinstance(row, dict)
        for backend, reason in row.get("left out", {}).items()
        if backend in ("cuda", "triton", "cpu") and "cannot run this call there" not in reason
    ]


def engine(options: argparse.Namespace) -> dict[str, Any]:
    """Each network and size in a child; what it had measured counts even where it was stopped or crashed."""
    result: dict[str, Any] = options.before.get("engine", {})
    result.pop("failed", None)
    wrong = []
    for size in options.sizes:
        for network in options.networks:
            case = f"{network} {size}"
            record = options.out / f"{network}-{size}.part.json"
            if interrupted := left_behind(record):
                interrupted.pop("making", None)
                result[case] = merged(result.get(case, {}), interrupted)
            ended = child(options, network, size, record)
            found = left_behind(record)
            if "making" in found:
                found.setdefault("failed", {})[found.pop("making")] = ended or "the process ended"
            result[case] = merged(result.get(case, {}), found)
            wrong += [f"{case}, {name}: {reason}" for name, reason in result[case].get("failed", {}).items()]
            wrong += [f"{case}: {ended}"] if ended else []
            options.save("engine", result)
    if wrong:
        result["failed"] = wrong
    return result


def child(options: argparse.Namespace, network: str, size: str, record: Path) -> str | None:
    """Run ``gpu_engine.py``; None, or how it ended."""
    command = [sys.executable, str(ROOT / "bench/gpu_engine.py"), network, size, "--record", str(record)]
    command += ["--device", options.device, "--rounds", str(max(3, options.rounds // 5))]
    command += ["--contenders", *options.contenders] if options.contenders else []
    try:
        run(command, options.limit)
    except Stopped:
        return f"stopped after {options.limit:g} s"
    except StageFailed as failure:
        return str(failure).partition("` ")[2]
    return None


def compile_together(options: argparse.Namespace) -> dict[str, Any]:
    """The plans of ``options.networks`` in our own convolutions, each made in a process, all at the same time.

    Triton compiles one kernel after the other in a process, and keeps what it made: who measures finds it there.
    """
    script, size = str(ROOT / "bench/gpu_engine.py"), options.sizes[-1]

    def one(network: str) -> str | None:
        try:
            run([sys.executable, script, network, size, "--compile-only", "--device", options.device], options.limit)
        except StageFailed as failure:
            return f"{network}: {failure}"
        return None

    with ThreadPoolExecutor(len(options.networks)) as pool:
        wrong = [reason for reason in pool.map(one, options.networks) if reason]
    return {"failed": wrong} if wrong else {}


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured before and was not measured again stays, marked as of another run, with what failed in it."""
    made = set(now.get("contenders", {}))
    for name, row in before.get("contenders", {}).items():
        if name not in now.setdefault("contenders", {}):
            now["contenders"][name] = row | {"earlier run": True}
    for name, reason in before.get("failed", {}).items():
        if name not in made | set(now.setdefault("failed", {})):
            now["failed"][name] = reason
    if now.get("claim") is None and "claim" in before:
        now["claim"] = before["claim"] | {"earlier run": True}
    return {**before, **now}


def train(options: argparse.Namespace) -> dict[str, Any]:
    if not options.configs:
        raise StageFailed("--configs names nothing to train")
    result: dict[str, Any] = options.before.get("train", {})
    result.pop("failed", None)
    wrong = []
    for config in options.configs:
        name = "-".join([config.stem, *(text.partition("=")[2] for text in options.settings)])
        settings = [*options.settings, f"out={(options.runs / name).resolve()}"]
        command = [sys.executable, "-m", "mga", "train", str(config.resolve())]
        command += [word for text in settings for word in ("--set", text)]
        command += ["--budget", options.budget] if options.budget else []
        try:
            result[name] = {"finished": True, "told": run(command, options.limit).splitlines()[-2:]}
        except Stopped as stopped:
            result[name] = {"finished": False, "told": [stopped.last]}
        except StageFailed as failure:
            wrong.append(str(failure))
        options.save("train", result)
    if wrong:
        result["failed"] = wrong
    return result


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "tests": tests,
    "sanitizer": sanitizer,
    "kernels": kernels,
    "engine": engine,
    "train": train,
}


def run_stage(stage: str, options: argparse.Namespace) -> bool:
    """Run and record it; whether nothing failed. Any may fail in any way, and the next is still worth its time."""
    try:
        found = STAGES[stage](options)
    except Exception as error:
        found = {**options.before.get(stage, {}), "failed": f"{type(error).__name__}: {error}"}
        print(f"bench/gpu.py: {stage} failed: {error}", file=sys.stderr, flush=True)
    options.save(stage, found)
    return "failed" not in found
