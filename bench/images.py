"""Whole images on the CPU, bytes to bytes: our -M against -D and the original network in every stock runtime.

    python bench/images.py [--networks pan rcan] [--scales 4] [--sizes 1080p 4K] [--only NAME ...] [--budget SECONDS]

One process for each network, scale and size of the result. Its contenders are first checked against each other: all
that compute one function must make one picture. Then they take turns; each leaves when it has used its share of the
budget or has run 9 times. Their peak memory is measured apart, in a process each (--no-memory leaves that out). The
figures go to bench/results/images_NETWORK-xSCALE_SIZE.json; `python bench/report.py` makes a table and plots of all of
them. Runtimes other than PyTorch come with `pip install -e .[peers]`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from contenders import OURS, Contender, Original, Run, contenders, make, make_networks
from rivals import Race

from mga.complexity.counting import NetworkCosts, measure
from mga.metrics import psnr_rgb
from mga_kernels import __version__, plans
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.registry import BUILT_IN
from mga_kernels.ops import paste_patches_

SIZES = {"270p": (480, 270), "540p": (960, 540), "1080p": (1920, 1080), "4K": (3840, 2160), "8K": (7680, 4320)}
ROUNDS = 9
LEAST_AGREEMENT = 33.0  # dB between two pictures of one function; bf16 costs a picture of random weights most
RESULTS = Path(__file__).parent / "results"


def test_image(width: int, height: int) -> np.ndarray:
    """Smooth shapes with some grain, uint8 (height, width, 3), the same for each size."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    shapes = torch.from_numpy(coarse).permute(2, 0, 1)[None].float()
    smooth = F.interpolate(shapes, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.clip(smooth + rng.normal(0, 4, (height, width, 1)), 0, 255).astype(np.uint8))


def gmacs(config: ModelConfig, width: int, height: int, k: int) -> dict[str, float]:
    """By the paper's convention, for the three functions."""
    with torch.inference_mode(False):  # inside it convolutions do not reach the counter
        costs = NetworkCosts(config)
        with torch.device("meta"):
            original = Original(config)
        return {
            "M": costs.cost("masked", width, height, k).macs / 1e9,
            "D": costs.cost("decomposed", width, height).macs / 1e9,
            "original": measure(original, 1, 3, height, width).macs / 1e9,
        }


def agreement(pictures: dict[str, np.ndarray], listed: list[Contender]) -> dict[str, float | None]:
    """PSNR (dB) of each picture against the float32 one of its function; None where they are equal."""
    result: dict[str, float | None] = {}
    for contender in listed:
        if contender.name not in pictures:
            continue
        same = [c.name for c in listed if c.function == contender.function and c.name in pictures]
        exact = next((name for name in same if "fp32" in name), same[0])
        value = psnr_rgb(pictures[contender.name], pictures[exact], 0)
        result[contender.name] = None if math.isinf(value) else round(value, 2)
        if value < LEAST_AGREEMENT:
            raise SystemExit(f"images: {contender.name} and {exact} make different pictures: {value:.1f} dB")
    return result


def take_turns(runs: dict[str, Run], image: np.ndarray, budget: float) -> Race:
    race = Race({name: lambda run=run: run(image) for name, run in runs.items()})
    for _ in range(ROUNDS):
        if not race.calls:
            break
        race.round()
        for name, times in race.times.items():
            if name in race.calls and sum(times) + times[-1] > budget:
                del race.calls[name]
    return race


def stages(network: MaskGuidedNetwork, image: np.ndarray, k: int, rounds: int) -> dict[str, float]:
    """Median seconds of the steps of ours, taken one by one."""
    planner, _ = plans.prepare(copy.deepcopy(network), torch.device("cpu"), None)
    plan, rgb = planner.plan(*image.shape[:2], k), torch.from_numpy(image)
    out = plan.buffer()
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = call(*arguments)
        times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    for _ in range(rounds):
        timed("base", plan.coarse, rgb, out)
        indices = timed("mask", plan.select, k)[1]
        timed("gather", plan.gather, indices)
        patches = timed("refine", plan.refined)
        timed("paste", paste_patches_, out.permute(2, 0, 1)[None], patches, indices)
    return {name: round(statistics.median(values), 6) for name, values in times.items()}


def peak_memory(arguments: list[str]) -> int | None:
    """MiB at the peak of a process that makes one contender and runs it twice, less what it holds before that."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def resident(field: str) -> int:
    """MiB, as Linux counts them."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) // 1024


@torch.inference_mode()
def run_alone(listed: list[Contender], name: str, image: np.ndarray) -> None:
    before = resident("VmRSS")
    run = make(next(c for c in listed if c.name == name))
    if isinstance(run, str):
        sys.exit(run)
    for _ in range(2):
        run(image)
    print(resident("VmHWM") - before)


def wanted(name: str, only: list[str]) -> bool:
    return name == OURS or not only or any(part in name for part in only)


@torch.inference_mode()
def run_one(args: argparse.Namespace, network_name: str, scale: int, size: str) -> dict[str, Any]:
    width, height = (side // scale for side in SIZES[size])
    image = test_image(width, height)
    network, original = make_networks(network_name, scale, image)
    config = network.config
    k = min(config.k, math.prod(-(-side // config.patch_size) for side in (height, width)))
    listed = [c for c in contenders(network, original, (height, width), k) if wanted(c.name, args.only)]
    if args.alone:
        run_alone(listed, args.alone, image)
        sys.exit(0)
    runs: dict[str, Run] = {}
    pictures: dict[str, np.ndarray] = {}
    missing: dict[str, str] = {}
    for contender in listed:
        started = time.perf_counter()
        run = make(contender)
        try:
            if not isinstance(run, str):
                pictures[contender.name] = run(image)
                runs[contender.name] = run
        except RuntimeError as error:
            run = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        if isinstance(run, str):
            missing[contender.name] = run
        note = run if isinstance(run, str) else f"ready after {time.perf_counter() - started:.1f} s"
        print(f"  {contender.name}: {note}", file=sys.stderr, flush=True)
    close = agreement(pictures, listed)
    del pictures
    race = take_turns(runs, image, args.budget)
    runs_of_ours = len(race.times[OURS])
    base = ["--networks", network_name, "--scales", str(scale), "--sizes", size, "--only", *args.only]
    memory = {} if args.no_memory else {name: peak_memory([*base, "--alone", name]) for name in runs}
    return {
        "network": network_name,
        "scale": scale,
        "size": size,
        "lr": [width, height],
        "k": k,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "versions": {name: _version(name) for name in ("torch", "openvino", "onnxruntime")}
        | {"mga_kernels": __version__},
        "gmacs": {name: round(value, 3) for name, value in gmacs(config, width, height, k).items()},
        "contenders": {
            c.name: {
                "function": c.function,
                "stock": c.stock,
                "median": round(race.median(c.name), 5),
                "min": round(min(race.times[c.name]), 5),
                "max": round(max(race.times[c.name]), 5),
                "runs": len(race.times[c.name]),
                "psnr_against_fp32": close[c.name],
                "peak_mib": memory.get(c.name),
            }
            for c in listed
            if c.name in runs
        },
        "missing": missing,
        "stages": stages(network, image, k, max(1, runs_of_ours // 2)),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=BUILT_IN, choices=BUILT_IN)
    parser.add_argument("--scales", nargs="+", type=int, default=[4], choices=(2, 3, 4))
    parser.add_argument("--sizes", nargs="+", default=["1080p", "4K"], choices=SIZES, help="of the result")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="contenders whose names contain one of these"
    )
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each contender (default 20)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    combinations = [(n, scale, size) for n in args.networks for scale in args.scales for size in args.sizes]
    if len(combinations) > 1:
        for name, scale, size in combinations:
            one = ["--networks", name, "--scales", str(scale), "--sizes", size, "--budget", str(args.budget)]
            one += ["--out", str(args.out), *(["--no-memory"] if args.no_memory else []), "--only", *args.only]
            if subprocess.run([sys.executable, __file__, *one], env=os.environ).returncode:
                sys.exit(1)
        return
    network, scale, size = combinations[0]
    print(f"{network} x{scale}, {size}", file=sys.stderr, flush=True)
    record = run_one(args, network, scale, size)
    target = args.out / f"images_{network}-x{scale}_{size}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    ours = record["contenders"][OURS]["median"]
    for name, row in record["contenders"].items():
        times = row["median"] / ours
        print(f"{name:32} {row['median']:9.3f} s {times:8.2f} times ours, peak {row['peak_mib']} MiB")


if __name__ == "__main__":
    main()
