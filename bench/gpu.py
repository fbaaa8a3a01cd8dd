"""Everything that only a machine with an NVIDIA GPU can show, in one command: ``python bench/gpu.py [STAGE...]``.

It needs torch >= 2.11 with CUDA, a CUDA toolkit, a C++ compiler, ninja, pybind11 and pytest; no network. Stages:

  build      the native library, in place, with its CUDA kernels; registers and spills of every kernel
  tests      the tests of operators, backends, build, networks and engine, of which no CUDA test may be skipped
  sanitizer  the CUDA tests of the operators under compute-sanitizer, where the toolkit has it
  kernels    every operator, backends interleaved with PyTorch eager and torch.compile, by CUDA events, with floors and
             spread, at C = 50 and 64; which targets are met
  engine     whole photographs of five networks at x4, 1080p and 4K, bytes to bytes: -M in a CUDA graph against stock
             -D, each network and size in a process of its own (see ``gpu_engine.py``)
  train      `mga train` with each of --configs and --budget, into a folder of its own under --runs, where its states
             and its weights are; what --limit stopped goes on with the next call

No command takes longer than --limit seconds; --tests, --tools, --operators, --networks, --sizes and --contenders choose
what fits. The result is one JSON file with device, driver, versions and commit, in bench/results/ or the folder of
--out. It is written after every stage, and within a stage after every tool, row, or network and size, and a later call
adds to it: nothing that was measured is lost when something fails, and the exit status is then 1. ``--device cpu
--tiny`` runs, without a GPU, what of the last three stages does not need one, so that the first minute on a GPU is not
spent on a typo.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPERATOR_TESTS = [
    *("select_patches", "gather_patches", "paste_patches", "mask_head", "dynamic_filter", "filter_and_select"),
    *("paste_shuffled", "image_to_input", "output_to_image", "conv_chain", "cuda_device", "cuda_against_triton"),
]
OTHER_TESTS = ["cuda_graph", "triton_kernels", "backends", "native_build", "host", "networks", "engine"]
TESTS = [f"tests/test_{name}.py" for name in (*OPERATOR_TESTS, *OTHER_TESTS)]
SANITIZED = [f"tests/test_{name}.py" for name in OPERATOR_TESTS]
BUILD = [sys.executable, "setup.py", "build_ext", "--inplace"]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
SANITIZER_TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
PLANNED_FOR_GPU = sorted(path.parent.name for path in ROOT.glob("mga_kernels/architectures/*/cuda.py"))
SIZES = ["1080p", "4K"]
WITHOUT_GPU = ["kernels", "engine", "train"]


class StageFailed(Exception):
    """One line that says what went wrong."""


class Stopped(StageFailed):
    """At its limit. ``last`` is what the command printed last."""

    def __init__(self, command: list[str], limit: float, last: str):
        super().__init__(f"`{' '.join(command)}` stopped after {limit:g} s: {last}")
        self.last = last


def environment(**extra: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}


def output_of(*command: str) -> str | None:
    """What a command prints, or None where it is missing or fails."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def run(command: list[str], limit: float, **extra: str) -> str:
    """Run in the repository, show the output as it comes, and return it. Raises StageFailed on failure.

    After ``limit`` seconds the command is stopped, which is a failure too: Stopped.
    """
    lines = []
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    stop = threading.Timer(limit, process.kill)
    stop.start()
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    status = process.wait()
    stop.cancel()
    if status:
        last = lines[-1].strip() if lines else ""
        if time.perf_counter() - started > limit:
            raise Stopped(command, limit, last)
        raise StageFailed(f"`{' '.join(command)}` ended with status {status}: {last}")
    return "".join(lines)


def stamp(device: str = "cuda") -> dict[str, Any]:
    import torch

    driver = output_of("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader")
    on_gpu = device == "cuda"
    return {
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if on_gpu else None,
        "driver, SM clock, power limit": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "nvcc": (output_of(f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/nvcc", "--version") or "").split(
            "\n"
        )[-1],
        "commit": output_of("git", "rev-parse", "HEAD"),
        "changed files": output_of("git", "status", "--porcelain", "--untracked-files=no"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def build(options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    run(BUILD, options.limit, MGA_CUDA="1")
    kernels = {}
    for log in sorted(ROOT.glob("build/temp*/cuda-release/_C/*.cu.o.log")):
        text = log.read_text()
        kernels[log.name.removesuffix(".o.log")] = {
            "registers": sorted({int(n) for n in re.findall(r"Used (\d+) registers", text)}),
            "spilled bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill stores", text)),
        }
    if not kernels:
        raise StageFailed("the build left no report of its CUDA kernels under build/")
    return {"seconds": round(time.perf_counter() - started, 1), "kernels": kernels}


def tests(options: argparse.Namespace) -> dict[str, Any]:
    output = run([*PYTEST, *chosen(TESTS, options)], options.limit)
    if "needs an NVIDIA GPU" in output or "built without CUDA kernels" in output:
        raise StageFailed("CUDA tests were skipped; see their reasons above")
    return {"summary": output.strip().splitlines()[-1]}


def chosen(files: list[str], options: argparse.Namespace) -> list[str]:
    return [file for file in files if not options.tests or any(name in file for name in options.tests)]


def sanitizer(options: argparse.Namespace) -> dict[str, Any]:
    beside_nvcc = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/compute-sanitizer"
    tool = shutil.which("compute-sanitizer") or (str(beside_nvcc) if beside_nvcc.exists() else None)
    if tool is None:
        return {"not run": "compute-sanitizer is not installed"}
    summaries: dict[str, Any] = {k: v for k, v in options.before.get("sanitizer", {}).items() if k != "failed"}
    for name in options.tools:
        command = [tool, "--tool", name, "--error-exitcode", "86", "--target-processes", "all", *PYTEST, "-k"]
        wanted = "cuda and not compile and not opcheck and not fake and not graph"
        files = chosen(SANITIZED, options)
        output = run([*command, wanted, *files], options.limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        told = [line for line in output.splitlines() if "SUMMARY" in line or " passed" in line]
        summaries[name] = {"files": len(files), "told": told}
        options.save("sanitizer", summaries)
    return summaries


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    import gpu_kernels

    if options.device == "cpu":
        result = gpu_kernels.measure_tiny()
    else:
        before = options.before.get("kernels", {})
        until = time.perf_counter() + options.limit
        result = gpu_kernels.measure_all(
            *("cuda", options.rounds, gpu_kernels.event_times),
            before=before,
            only=options.operators,
            save=lambda found: options.save("kernels", found),
            until=until,
        )
        result["targets"] = gpu_kernels.targets(result.get("C=64 bfloat16", {}))
        for target in result["targets"]:
            print(target, flush=True)
    wrong = wrong_backends(result) + result.pop("not measured", [])
    if wrong:
        result["failed"] = wrong
    return result


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
            record = options.out / f".{network}-{size}.json"
            ended = child(options, network, size, record)
            found = json.loads(record.read_text()) if record.exists() else {}
            record.unlink(missing_ok=True)
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
        done = subprocess.run(command, cwd=ROOT, env=environment(), timeout=options.limit, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired:
        return f"stopped after {options.limit:g} s"
    if done.returncode == 0:
        return None
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"ended with status {done.returncode}: {''.join(last)}"


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured before and was not measured again stays, marked as of another run."""
    for name, row in before.get("contenders", {}).items():
        if name not in now.setdefault("contenders", {}):
            now["contenders"][name] = row | {"earlier run": True}
    for name, reason in before.get("failed", {}).items():
        if name not in now["contenders"] | now.setdefault("failed", {}):
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


def plan(options: argparse.Namespace) -> list[str]:
    """What each chosen stage would run, one line a stage."""
    words = {
        "build": f"MGA_CUDA=1 {' '.join(BUILD)}",
        "tests": " ".join([*PYTEST, *TESTS]),
        "sanitizer": f"compute-sanitizer --tool {{{','.join(SANITIZER_TOOLS)}}} on {' '.join(SANITIZED)}",
        "kernels": f"every operator at C=50 in float32 and float16, at C=64 in bfloat16, {options.rounds} rounds",
        "engine": f"{', '.join(options.networks)} at x4, {', '.join(options.sizes)}: "
        f"{'; '.join(options.contenders) or 'every contender'}; at most {options.limit:g} s each",
        "train": f"{', '.join(map(str, options.configs))}; at most {options.limit:g} s each",
    }
    return [f"{stage}: {words[stage]}" for stage in options.stages]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = f"of {', '.join(STAGES)}; all by default, train where --configs is given"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=which)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results", help="folder for the JSON file")
    parser.add_argument("--rounds", type=int, default=100, help="timed rounds of the kernels stage (engine: a fifth)")
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="test files, of tests and sanitizer")
    parser.add_argument("--tools", nargs="+", choices=SANITIZER_TOOLS, default=SANITIZER_TOOLS, help="of sanitizer")
    parser.add_argument("--operators", nargs="+", default=[], metavar="NAME", help="of the kernels stage")
    parser.add_argument("--networks", nargs="+", choices=PLANNED_FOR_GPU, default=PLANNED_FOR_GPU, help="of engine")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="of its results")
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="see gpu_engine.py; all by default")
    parser.add_argument("--configs", nargs="+", type=Path, default=[], metavar="TOML", help="of the train stage")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE", help="see mga train")
    parser.add_argument("--budget", metavar="TIME", help="of each configuration, over all calls; see mga train")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="for states (default runs/)")
    parser.add_argument(
        "--limit",
        type=float,
        default=540,
        help="seconds for a command, the kernels, a network at a size, a configuration (540)",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="with --device cpu: small tensors, figures without meaning")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, without a GPU")
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        parser.error(f"there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    if (options.device == "cpu") != options.tiny:
        parser.error("--device cpu and --tiny go together: figures of a CPU are made by other benchmarks")
    if options.tiny:
        options.sizes, options.rounds = ["tiny"], min(options.rounds, 10)
    asked = options.stages or [stage for stage in STAGES if stage != "train" or options.configs]
    options.stages = [s for s in STAGES if s in asked and (s in WITHOUT_GPU or not options.tiny)]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.dry_run:
        print("\n".join(plan(options)))
        return 0
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench/gpu.py: torch finds no NVIDIA GPU here; --dry-run lists what would run", file=sys.stderr)
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "python")]
    from mga.files.records import to_json

    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"stamp": stamp(options.device), "stages": {}}
    device = re.sub(r"[^a-z0-9]+", "-", report["stamp"]["device"].lower()).strip("-")
    path = options.out / f"gpu-{device}-{(report['stamp']['commit'] or 'unknown')[:10]}.json"
    if path.exists():
        report["stages"] = json.loads(path.read_text())["stages"]
    options.before = report["stages"]

    def save(stage: str, found: dict[str, Any]) -> None:
        report["stages"][stage] = found
        whole = path.with_suffix(".new")
        whole.write_text(to_json(report, levels=4))
        whole.replace(path)

    options.save = save
    failed = False
    for stage in options.stages:
        print(f"== {stage}", flush=True)
        try:
            found = STAGES[stage](options)
        except Exception as error:  # any stage may fail in any way, and the next one is still worth its time
            found = {**report["stages"].get(stage, {}), "failed": f"{type(error).__name__}: {error}"}
            print(f"bench/gpu.py: {stage} failed: {error}", file=sys.stderr, flush=True)
        failed |= "failed" in found
        save(stage, found)
    print(path)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
