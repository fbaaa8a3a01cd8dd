"""Whole images on the CPU, bytes to bytes: our -M against -D and the original network in every stock runtime.

    python bench/images.py [--networks pan rcan] [--scales 4] [--sizes 1080p 4K] [--only NAME ...] [--budget SECONDS]

Each contender runs in a process of its own, which shows its peak memory. They are first checked against each other:
all that compute one function must make one picture. Then they take turns; each leaves when it has used its share of the
budget or has run 9 times. Where not all fit into memory together, there are several heats, with ours in each of them.
The figures go to bench/results/images_NETWORK-xSCALE_SIZE_INSTRUCTIONS.json, one for each kind of processor, named by
its best instruction set, or, with _held behind it, by the one that --held names; `python bench/report.py` makes tables
and plots of all. Runtimes other than PyTorch come with `pip install -e .[peers]`.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from contenders import OURS, Contender, Original, Run, contenders, make, make_networks
from held import FREE, add_held, hold
from turns import ROUNDS, Player, contest, play

from mga.complexity.counting import NetworkCosts, measure
from mga.files.records import to_json
from mga_kernels import __version__, _native, runtimes
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, network_names
from mga_kernels.networks.registry import package_networks
from mga_kernels.ops import paste_patches_

SIZES = {"270p": (480, 270), "540p": (960, 540), "1080p": (1920, 1080), "4K": (3840, 2160), "8K": (7680, 4320)}
LEAST_FP32, LEAST_BF16 = 60.0, 40.0  # dB between two pictures of one function
EQUAL = 150.0  # dB, as JSON has no infinity
TIES = 0.05  # of K
RESULTS = Path(__file__).parent / "results"


def size_of(text: str) -> tuple[int, int]:
    """Width and height by the name of SIZES, or of a text as 1024x768."""
    width, _, height = text.partition("x")
    return SIZES[text] if text in SIZES else (int(width), int(height))


def test_image(width: int, height: int) -> np.ndarray:
    """Smooth shapes with some grain, uint8 (height, width, 3), the same for each size."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    shapes = torch.from_numpy(coarse).permute(2, 0, 1)[None].float()
    smooth = F.interpolate(shapes, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.clip(smooth + rng.normal(0, 4, (height, width, 1)), 0, 255).astype(np.uint8))


def gmacs(config: ModelConfig, width: int, height: int, k: int) -> dict[str, float]:
    """By the paper's convention, for the three functions; of -D also without its coarse image, which nobody sees."""
    with torch.inference_mode(False):  # inside it convolutions do not reach the counter
        costs = NetworkCosts(config)
        with torch.device("meta"):
            original = Original(config)
        decomposed = costs.cost("decomposed", width, height)
        base, trunk = (measure(part, 1, 3, height, width) for part in (costs.network.base, costs.network.trunk()))
        return {
            "M": costs.cost("masked", width, height, k).macs / 1e9,
            "D": decomposed.macs / 1e9,
            "D alone": (decomposed + base * -1 + trunk).macs / 1e9,
            "original": measure(original, 1, 3, height, width).macs / 1e9,
        }


def psnr(picture: np.ndarray, exact: np.ndarray, cell: int = 1, ties: int = 0) -> float:
    """dB between two uint8 pictures without the ``ties`` cells of ``cell`` x ``cell`` pixels that differ most."""
    rows, columns = (side // cell for side in exact.shape[:2])
    if picture.shape != exact.shape:
        return 0.0
    error = np.zeros((rows, columns))
    for channel in range(3):
        difference = picture[..., channel].astype(np.float32) - exact[..., channel]
        cells = difference[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
        error += np.einsum("rycx,rycx->rc", cells, cells)
    kept = np.partition(error.ravel(), error.size - 1 - ties)[: error.size - ties]
    mean = kept.mean() / (3 * cell**2)
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


class Agreement:
    """All pictures of one function must be one picture, but for rounding.

    -M may refine a few other cells in bf16 than in float32, where masks nearly tie: a share of the K cells is left out
    of the comparison. ``found``: dB by contender, None where nothing was there to compare with.
    """

    def __init__(self, listed: list[Contender], cell: int, k: int):
        self.functions = {contender.name: contender.function for contender in listed}
        self.cell, self.ties = cell, math.ceil(TIES * k)
        self.exact: dict[str, tuple[str, np.ndarray]] = {}
        self.found: dict[str, float | None] = {}

    def check(self, pictures: dict[str, np.ndarray]) -> None:
        """Exits where one of them is another picture."""
        for name, picture in pictures.items():
            if "fp32" in name:
                self.exact.setdefault(self.functions[name], (name, picture))
        for name, picture in pictures.items():
            masked = self.functions[name] == "M"
            reference, exact = self.exact.get(self.functions[name], (name, picture))
            self.found.setdefault(name, None)
            if reference == name:
                continue
            value = psnr(picture, exact, self.cell, self.ties) if masked else psnr(picture, exact)
            if value < (LEAST_FP32 if "fp32" in name else LEAST_BF16):
                raise SystemExit(f"images: {name} and {reference} make different pictures: {value:.1f} dB")
            self.found[name] = round(min(value, EQUAL), 2)


def stages(network: MaskGuidedNetwork, image: np.ndarray, k: int, rounds: int) -> dict[str, Any]:
    """Median seconds of the steps of ours, taken one by one, and the best instruction set of the processor."""
    planner, _ = runtimes.prepare(copy.deepcopy(network), torch.device("cpu"), None)
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
    return {
        "stages": {name: round(statistics.median(values), 6) for name, values in times.items()},
        "instructions": _native.instruction_set(),
    }


def wanted(name: str, only: list[str], held: str | None) -> bool:
    if held and any(free in name for free in FREE):
        return False
    return name == OURS or not only or any(part in name for part in only)


@torch.no_grad()
def run_one(args: argparse.Namespace, network_name: str, scale: int, size: str) -> dict[str, Any]:
    width, height = (side // scale for side in size_of(size))
    image = test_image(width, height)
    network, original = make_networks(network_name, scale, image)
    config = network.config
    k = min(config.k, math.prod(-(-side // config.patch_size) for side in (height, width)))
    listed = [c for c in contenders(network, original, (height, width), k) if wanted(c.name, args.only, args.held)]
    if args.play:
        play_one(args, listed, image, network, k)
        sys.exit(0)
    agreement = Agreement(listed, scale * config.patch_size, k)
    of_ours: dict[str, Any] = {}

    def last(ours: Player) -> None:
        of_ours.update(ours.ask("info"))
        of_ours.update(ours.ask("stages"))

    with tempfile.TemporaryDirectory() as folder:

        def start(name: str) -> Player:
            options = ["--networks", network_name, "--scales", str(scale), "--sizes", size, "--play", name, folder]
            return Player(name, [sys.executable, __file__, *options])

        def check(names: list[str]) -> None:
            agreement.check({name: np.load(picture_file(folder, name), mmap_mode="r") for name in names})

        others = [c.name for c in listed if c.name != OURS]
        players, missing = contest(OURS, others, start, check, last, args.budget)
    return {
        "network": network_name,
        "scale": scale,
        "size": size,
        "lr": [width, height],
        "k": k,
        "threads": torch.get_num_threads(),
        "processor": processor() + (f", held to {args.held}" if args.held else ""),
        "versions": {name: _version(name) for name in ("torch", "openvino", "onnxruntime", "ncnn")}
        | {"mga_kernels": __version__},
        "gmacs": {name: round(value, 3) for name, value in gmacs(config, width, height, k).items()},
        "contenders": {
            c.name: {"function": c.function, "stock": c.stock}
            | figures(players[c.name])
            | {"psnr_against_fp32": agreement.found[c.name]}
            for c in listed
            if c.name in players
        },
        "missing": missing,
        **of_ours,
    }


def picture_file(folder: str, name: str) -> Path:
    return Path(folder) / f"{name}.npy"


def figures(player: Player) -> dict[str, float]:
    times = player.times
    return {
        "median": round(statistics.median(times), 5),
        "min": round(min(times), 5),
        "max": round(max(times), 5),
        "runs": len(times),
        "times_ours": round(player.times_ours, 4),
        "heat": player.heat,
        "peak_mib": player.peak,
    }


def play_one(
    args: argparse.Namespace, listed: list[Contender], image: np.ndarray, network: MaskGuidedNetwork, k: int
) -> None:
    """In the process of one contender."""
    name, folder = args.play
    contender = next(c for c in listed if c.name == name)
    answers: dict[str, Callable[[Run], dict[str, Any]]] = {
        "info": lambda run: {"info": run.info()},  # type: ignore[attr-defined]
        "stages": lambda run: stages(network, image, k, ROUNDS // 2),
    }
    play(lambda: make(contender), image, picture_file(folder, name), answers)


def processor() -> str:
    """Its name, with family and model on x86: of some virtual machines the name says no more than the maker."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        of = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
        return f"{of['model name']} (family {of['cpu family']}, model {of['model']})"
    except (OSError, KeyError):
        return platform.processor()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    planned = [network.name for network in package_networks() if network.refine and network.cpu]
    parser.add_argument("--networks", nargs="+", default=planned, choices=network_names())
    parser.add_argument("--scales", nargs="+", type=int, default=[4], choices=(2, 3, 4))
    parser.add_argument(
        "--sizes", nargs="+", default=["1080p", "4K"], help=f"of the result: {', '.join(SIZES)}, 1024x768"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="contenders whose names contain one of these"
    )
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each contender (default 20)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    add_held(parser)
    parser.add_argument("--play", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    hold(args.held)
    combinations = [(n, scale, size) for n in args.networks for scale in args.scales for size in args.sizes]
    if len(combinations) > 1:
        for name, scale, size in combinations:
            one = ["--networks", name, "--scales", str(scale), "--sizes", size, "--budget", str(args.budget)]
            one += ["--out", str(args.out), "--only", *args.only, *(["--held", args.held] if args.held else [])]
            if subprocess.run([sys.executable, __file__, *one], env=os.environ).returncode:
                sys.exit(1)
        return
    network, scale, size = combinations[0]
    print(f"{network} x{scale}, {size}", file=sys.stderr, flush=True)
    record = run_one(args, network, scale, size)
    kind = record["instructions"] + ("_held" if args.held else "")
    target = args.out / f"images_{network}-x{scale}_{size}_{kind}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(to_json(record))
    for name, row in record["contenders"].items():
        print(f"{name:38} {row['median']:9.3f} s {row['times_ours']:8.2f} times ours, peak {row['peak_mib']} MiB")


if __name__ == "__main__":
    main()
