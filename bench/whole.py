"""Seconds of networks that exist whole, in every runtime that is installed, in turns.

    python bench/whole.py span-x4 realesr-general-x4 [--size 480x270] [--rounds 4] [--dtype float32]

Takes names of shipped models and files. All make the picture of one image of --size from bytes to bytes; medians of
the rounds, and ratios to our own convolutions, of the clock and of the processor, which others on the machine disturb
less. Pictures of others must be ours to 60 dB, to 40 where one of both runs in bfloat16. OpenVINO and PyTorch run as
they do here with ``runtime=``; ONNX Runtime and ncnn as whoever converts the network has them, by PyTorch's exporter
and by ncnn's own, which takes minutes and much memory where there are hundreds of layers: of a graph of ncnn
(FILE.param), ncnn runs the graph itself. These two are left out where networks have colours converted around them, and
with --held, which does not hold them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contenders import Contender, Run, make, ncnn, ncnn_net, ncnn_run, onnxruntime
from held import add_held, hold
from images import LEAST_BF16, LEAST_FP32, psnr, size_of, test_image

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.checkpoints.ncnn.graph import Graph
from mga_kernels.errors import InputError
from mga_kernels.networks import WholeNetwork

RUNTIMES = ("own", "openvino", "pytorch")
EXAMPLE = 64, 96  # of an image that ncnn's converter runs the network on several times


@dataclass(frozen=True)
class Way:
    """How a network is run, and in what, for people."""

    run: Run
    told: str

    @property
    def narrow(self) -> bool:
        return "bfloat16" in self.told


def ours(model: str, dtype: str) -> Iterator[tuple[str, Way | str]]:
    """All runtimes that this package knows, or why one cannot run; InputError where its own cannot."""
    for runtime in RUNTIMES:
        try:
            one = MaskGuidedSR.from_checkpoint(model, device="cpu", runtime=runtime, dtype=dtype)
        except InputError as error:
            if runtime == "own":
                raise
            yield runtime, str(error)
        else:
            yield runtime, Way(one.upscale, str(one.info()["photographs"]))


def others(model: str, size: tuple[int, int]) -> Iterator[tuple[str, Way | str]]:
    """The runtimes that take a network of RGB in 0..1 converted; ``size``: height and width."""
    network = load_checkpoint(model)
    if not isinstance(network, WholeNetwork) or network.config.colour != "rgb":
        yield "ONNX Runtime, ncnn", "they are given networks of RGB"
        return
    ways = {
        "ONNX Runtime": (lambda: onnxruntime(network, 1.0, size), "float32"),
        "ncnn": (lambda: by_ncnn(model, network), "float32, stored as it does by itself"),
    }
    for name, (function, told) in ways.items():
        found = make(Contender(name, "original", function))
        yield name, found if isinstance(found, str) else Way(found, told)


def by_ncnn(model: str, network: WholeNetwork) -> Run:
    """The graph that ``model`` is, or one that ncnn's converter makes of the network."""
    if Path(model).suffix != ".param":
        return ncnn(network, 1.0, EXAMPLE, exact=False)
    graph = Graph(Path(model))
    net = ncnn_net(model, str(Path(model).with_suffix(".bin")), exact=False)
    return ncnn_run(net, graph.source, graph.result, 1.0)


def measure(model: str, image: np.ndarray, rounds: int, dtype: str, held: bool) -> None:
    found = dict(ours(model, dtype)) | (dict(others(model, image.shape[:2])) if not held else {})
    ways = {name: way for name, way in found.items() if isinstance(way, Way)}
    for name, reason in found.items():
        if isinstance(reason, str):
            print(f"{model}: without {name}: {reason}")
    pictures = {name: way.run(image) for name, way in ways.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter(), time.process_time()
            way.run(image)
            times[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    for name, pairs in times.items():
        clock, processor = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratios = [[a / b for a, b in zip(*both, strict=True)] for both in zip(pairs, times["own"], strict=True)]
        of_clock, of_processor = (statistics.median(values) for values in zip(*ratios, strict=True))
        likeness = psnr(pictures[name], pictures["own"])
        if likeness < (LEAST_BF16 if ways[name].narrow or ways["own"].narrow else LEAST_FP32):
            raise SystemExit(f"whole: {model} in {name} makes another picture: {likeness:.1f} dB")
        print(f"{model:20} {name:12} {clock:7.3f} s, {of_clock:5.2f} times ours; of the processor ", end="")
        print(f"{processor:7.3f} s, {of_processor:5.2f} times ({ways[name].told}; {likeness:.1f} dB)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--size", type=size_of, default=(480, 270), help="of the image, WIDTHxHEIGHT (default 480x270)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16 (default auto)")
    add_held(parser)
    args = parser.parse_args()
    hold(args.held)
    print(f"{args.size[0]}x{args.size[1]}, {torch.get_num_threads()} threads")
    for model in args.models:
        measure(model, test_image(*args.size), args.rounds, args.dtype, bool(args.held))


if __name__ == "__main__":
    main()
