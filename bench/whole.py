"""Seconds of networks that exist whole, in every runtime that is installed, in turns.

    python bench/whole.py span-x4 realesr-general-x4 [--size 480x270] [--rounds 4] [--dtype float32]

Takes names of shipped models and files. All make the picture of one image of --size from bytes to bytes; medians of
the rounds, and ratios to our own convolutions, of the clock and of the processor, which others on the machine disturb
less. Pictures of others must be ours to 60 dB, to 40 where one of both runs in bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from held import add_held, hold
from images import LEAST_BF16, LEAST_FP32, psnr, size_of, test_image

from mga_kernels import MaskGuidedSR
from mga_kernels.errors import InputError

RUNTIMES = ("own", "openvino", "pytorch")


def measure(model: str, image: np.ndarray, rounds: int, dtype: str) -> None:
    made = {}
    for runtime in RUNTIMES:
        try:
            made[runtime] = MaskGuidedSR.from_checkpoint(model, device="cpu", runtime=runtime, dtype=dtype)
        except InputError as error:
            if runtime == "own":
                raise
            print(f"{model}: {error}")
    pictures = {runtime: one.upscale(image) for runtime, one in made.items()}
    times: dict[str, list[tuple[float, float]]] = {runtime: [] for runtime in made}
    for _ in range(rounds):
        for runtime, one in made.items():
            begun = time.perf_counter(), time.process_time()
            one.upscale(image)
            times[runtime].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    for runtime, pairs in times.items():
        clock, processor = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratios = [[a / b for a, b in zip(*both, strict=True)] for both in zip(pairs, times["own"], strict=True)]
        of_clock, of_processor = (statistics.median(values) for values in zip(*ratios, strict=True))
        likeness = psnr(pictures[runtime], pictures["own"])
        narrow = any("bfloat16" in str(made[one].info()["photographs"]) for one in (runtime, "own"))
        if likeness < (LEAST_BF16 if narrow else LEAST_FP32):
            raise SystemExit(f"whole: {model} in {runtime} makes another picture: {likeness:.1f} dB")
        print(f"{model:28} {runtime:9} {clock:7.3f} s, {of_clock:5.2f} times ours; ", end="")
        print(f"of the processor {processor:7.3f} s, {of_processor:5.2f} times ({made[runtime].info()['photographs']})")


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
        measure(model, test_image(*args.size), args.rounds, args.dtype)


if __name__ == "__main__":
    main()
