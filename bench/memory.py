"""Memory of the engine on the CPU: its peak as the image grows, and what a second image of one size allocates.

    python bench/memory.py [--network rfdn] [--scale 4] [--sizes 4K 8K] [--memory 3GiB]

Each figure is that of a process of its own. Peaks are the most that was resident (VmHWM) less what was before the
network was made; the eager float32 -D of the smallest size stands beside them. Allocations of 1 MiB and more are
counted by a library put before the C library, while the second image runs into memory that the caller gave (`out=`).
The figures go to bench/results/memory_NETWORK-xSCALE.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import Decomposed, eager, make_networks
from images import RESULTS, SIZES, test_image
from turns import forget_peak, resident

from mga.files.records import to_json
from mga_kernels import MaskGuidedSR, __version__

MEBI = 1 << 20
SOURCE = Path(__file__).with_name("large_allocations.c")


def build_counter(folder: Path) -> Path:
    """The library that counts allocations."""
    target = folder / "large_allocations.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", str(SOURCE), "-o", str(target), "-ldl"]
    subprocess.run(command, check=True)
    return target


def _inputs(args: argparse.Namespace) -> tuple[np.ndarray, Any]:
    width, height = (side // args.scale for side in SIZES[args.sizes[0]])
    image = test_image(width, height)
    return image, make_networks(args.network, args.scale, image)[0]


def count_allocations(args: argparse.Namespace) -> dict[str, Any]:
    """What the second image of one size allocates; in a process with the counter."""
    library = ctypes.CDLL(None)
    library.watch_allocations.argtypes = [ctypes.c_size_t]
    library.largest_allocation.restype = ctypes.c_size_t
    image, network = _inputs(args)
    model = MaskGuidedSR(network, device="cpu", runtime="own")
    out = np.empty((image.shape[0] * args.scale, image.shape[1] * args.scale, 3), np.uint8)
    model.upscale(image, out=out)
    library.watch_allocations(MEBI)
    model.upscale(image, out=out)
    result = {"of 1 MiB and more": library.allocations_seen(), "largest bytes": library.largest_allocation()}
    library.watch_allocations(MEBI)
    probe = np.empty(2 * MEBI, np.uint8)
    assert library.allocations_seen() == 1, "the counter does not see what is allocated"
    del probe
    library.watch_allocations(0)
    return result


@torch.no_grad()
def peak(args: argparse.Namespace, dense: bool) -> dict[str, Any]:
    """MiB that one image takes; in a process of its own."""
    image, network = _inputs(args)
    forget_peak()
    before = resident("VmRSS")
    if dense:
        eager(Decomposed(network).eval(), network.value_range, torch.float32)(image)
        return {"peak MiB": resident("VmHWM") - before}
    settings = {"memory": args.memory} if args.memory else {}
    model = MaskGuidedSR(network, device="cpu", **settings)
    model.upscale(image)
    return {"peak MiB": resident("VmHWM") - before, "prepared": model.info()["prepared"]}


def in_child(args: argparse.Namespace, task: str, size: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--network", args.network, "--scale", str(args.scale), "--sizes", size]
    command += ["--task", task, *(["--memory", args.memory] if args.memory else [])]
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        if task == "allocations":
            environment["LD_PRELOAD"] = str(build_counter(Path(folder)))
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="rfdn")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--sizes", nargs="+", default=["4K", "8K"], choices=SIZES, help="of the result")
    parser.add_argument("--memory", help="budget of the engine, as in 3GiB (default: what is available)")
    parser.add_argument("--task", choices=("allocations", "ours", "dense"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        found = count_allocations(args) if args.task == "allocations" else peak(args, args.task == "dense")
        print(json.dumps(found))
        return
    smallest = args.sizes[0]
    record = {
        "network": f"{args.network}-x{args.scale}",
        "versions": {"mga_kernels": __version__, "torch": torch.__version__},
        "memory": args.memory,
        "ours": {size: in_child(args, "ours", size) for size in args.sizes},
        "-D, PyTorch fp32": {smallest: in_child(args, "dense", smallest)},
        "second image": {smallest: in_child(args, "allocations", smallest)},
    }
    (RESULTS / f"memory_{record['network']}.json").write_text(to_json(record))
    print(to_json(record), end="")


if __name__ == "__main__":
    main()
