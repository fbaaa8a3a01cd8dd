"""Everything that only a machine with an NVIDIA GPU can show, in one command: ``python bench/gpu.py [STAGE...]``.

It needs torch >= 2.11 with CUDA, a CUDA toolkit, a C++ compiler, ninja, pybind11 and pytest; no network. Stages:

  build      the native library, in place, with its CUDA kernels; registers and spills of every kernel
  tests      the tests of operators, backends, build, networks and engine, of which no CUDA test may be skipped
  sanitizer  the CUDA tests of the operators under compute-sanitizer, where the toolkit has it
  kernels    every operator, backends interleaved with PyTorch eager and torch.compile, by CUDA events, with floors and
             spread, at C = 50 and 64; which targets are met
  engine     whole images of 960x540 by variant, interleaved, by CUDA events

The result is one JSON file with device, driver, versions and commit, in bench/results/ or the folder of --out. It is
written after every stage, so a stage that fails loses nothing; the exit status is then 1.
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPERATOR_TESTS = [
    *("select_patches", "gather_patches", "paste_patches", "mask_head", "dynamic_filter", "filter_and_select"),
    *(
        "paste_shuffled",
        "image_to_input",
        "output_to_image",
        "patch_conv",
        "conv_chain",
        "cuda_device",
        "cuda_against_triton",
    ),
]
OTHER_TESTS = ["triton_kernels", "backends", "native_build", "host", "networks", "engine"]
TESTS = [f"tests/test_{name}.py" for name in (*OPERATOR_TESTS, *OTHER_TESTS)]
SANITIZED = [f"tests/test_{name}.py" for name in OPERATOR_TESTS]
BUILD = [sys.executable, "setup.py", "build_ext", "--inplace"]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
SANITIZER_TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
VARIANTS = ["base", "masked", "all"]


class StageFailed(Exception):
    """One line that says what went wrong."""


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


def run(command: list[str], **extra: str) -> str:
    """Run in the repository, show the output as it comes, and return it. Raises StageFailed on failure."""
    lines = []
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait():
        last = lines[-1].strip() if lines else ""
        raise StageFailed(f"`{' '.join(command)}` ended with status {process.returncode}: {last}")
    return "".join(lines)


def stamp() -> dict[str, Any]:
    import torch

    driver = output_of("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader")
    return {
        "device": torch.cuda.get_device_name(0),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
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


def build(_: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    run(BUILD, MGA_CUDA="1")
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


def tests(_: argparse.Namespace) -> dict[str, Any]:
    output = run([*PYTEST, *TESTS])
    if "needs an NVIDIA GPU" in output or "built without CUDA kernels" in output:
        raise StageFailed("CUDA tests were skipped; see their reasons above")
    return {"summary": output.strip().splitlines()[-1]}


def sanitizer(_: argparse.Namespace) -> dict[str, Any]:
    beside_nvcc = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/compute-sanitizer"
    tool = shutil.which("compute-sanitizer") or (str(beside_nvcc) if beside_nvcc.exists() else None)
    if tool is None:
        return {"not run": "compute-sanitizer is not installed"}
    summaries = {}
    for name in SANITIZER_TOOLS:
        command = [tool, "--tool", name, "--error-exitcode", "86", "--target-processes", "all", *PYTEST, "-k"]
        wanted = "cuda and not compile and not opcheck and not fake and not graph"
        output = run([*command, wanted, *SANITIZED], PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        summaries[name] = [line for line in output.splitlines() if "SUMMARY" in line or " passed" in line]
    return summaries


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    import gpu_kernels

    result = gpu_kernels.measure_all("cuda", options.rounds, gpu_kernels.event_times)
    result["targets"] = gpu_kernels.targets(result["C=64 bfloat16"])
    for target in result["targets"]:
        print(target, flush=True)
    wrong = [
        f"{name} on {backend}: {reason}"
        for table in result.values()
        if isinstance(table, dict)
        for name, row in table.items()
        if isinstance(row, dict)
        for backend, reason in row.get("left out", {}).items()
        if backend in ("cuda", "triton") and "cannot run this call there" not in reason
    ]
    if wrong:
        result["failed"] = wrong
    return result


def engine(options: argparse.Namespace) -> dict[str, Any]:
    import gpu_kernels
    import torch

    from mga_kernels import MaskGuidedSR, ops

    result: dict[str, Any] = {}
    image = torch.rand(1, 3, 540, 960, generator=torch.Generator().manual_seed(5)).cuda()
    for dtype in ("float32", "float16"):
        model = MaskGuidedSR.from_pretrained(options.model, device="cuda", dtype=dtype)
        base, everything = (model(image, variant=variant) for variant in ("base", "all"))
        if not torch.equal(model(image, variant="masked", k=0), base):
            raise StageFailed(f"{dtype}: masked with K = 0 differs from base")
        off = float((model(image, variant="masked", fraction=1.0) - everything).abs().max())
        if off > (1e-6 if dtype == "float32" else 1e-2):
            raise StageFailed(f"{dtype}: masked with every cell differs from all by {off}")
        calls = {variant: lambda m=model, v=variant: m(image, variant=v) for variant in VARIANTS}
        times = gpu_kernels.event_times(calls, max(10, options.rounds // 5))
        timed = {name: gpu_kernels.summary(each) for name, each in times.items()}
        backends = {op: ops.last_backend(op) for op in ops.operators()}
        result[dtype] = {"k": model.resolve_k(540, 960), "masked all vs all": off, "backends": backends, **timed}
        print(dtype, json.dumps(result[dtype]), flush=True)
    return result


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "tests": tests,
    "sanitizer": sanitizer,
    "kernels": kernels,
    "engine": engine,
}


def plan(options: argparse.Namespace) -> list[str]:
    """What each chosen stage would run, one line a stage."""
    words = {
        "build": f"MGA_CUDA=1 {' '.join(BUILD)}",
        "tests": " ".join([*PYTEST, *TESTS]),
        "sanitizer": f"compute-sanitizer --tool {{{','.join(SANITIZER_TOOLS)}}} on {' '.join(SANITIZED)}",
        "kernels": f"every operator at C=50 in float32 and float16, at C=64 in bfloat16, {options.rounds} rounds",
        "engine": f"{options.model} at 960x540: {', '.join(VARIANTS)} in float32 and float16",
    }
    return [f"{stage}: {words[stage]}" for stage in options.stages]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results", help="folder for the JSON file")
    parser.add_argument("--rounds", type=int, default=100, help="timed rounds of the kernels stage (engine: a fifth)")
    parser.add_argument("--model", default="rfdn-x4", help="model of the engine stage")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, without a GPU")
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        parser.error(f"there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    options.stages = [stage for stage in STAGES if not options.stages or stage in options.stages]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.dry_run:
        print("\n".join(plan(options)))
        return 0
    import torch

    if not torch.cuda.is_available():
        print("bench/gpu.py: torch finds no NVIDIA GPU here; --dry-run lists what would run", file=sys.stderr)
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "python")]
    report: dict[str, Any] = {"stamp": stamp(), "stages": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", report["stamp"]["device"].lower()).strip("-")
    path = options.out / f"gpu-{device}-{(report['stamp']['commit'] or 'unknown')[:10]}.json"
    failed = False
    for stage in options.stages:
        print(f"== {stage}", flush=True)
        try:
            report["stages"][stage] = STAGES[stage](options)
            failed |= "failed" in report["stages"][stage]
        except Exception as error:  # any stage may fail in any way, and the next one is still worth its time
            failed = True
            report["stages"][stage] = {"failed": f"{type(error).__name__}: {error}"}
            print(f"bench/gpu.py: {stage} failed: {error}", file=sys.stderr, flush=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(path)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
