"""Seconds of two checkouts of this project, in turns: whether a change has made anything slower.

    git worktree add ../before COMMIT && (cd ../before && python setup.py -q build_ext --inplace)
    python bench/compare_commits.py ../before . [--models rfdn-x4 span-x4 ...] [--size 480x270] [--rounds 9]

Each checkout has a native library of its own and runs in a process of its own; nothing is built or installed here. In
each round both make the picture of the same image from bytes to bytes, one after the other, and who begins changes from
round to round. Medians, and the median of the ratios of each round: of the clock, and of the processor, which others on
the machine disturb less. Ends with status 1 where a ratio of the processor is beyond --limit, or pictures differ by
more than one level.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from images import size_of, test_image

MODELS = ("rfdn-x4", "span-x4", "fsrcnn-x2")
# What a process runs, in either checkout, so it asks for no more than has been there for long.
CHILD = """
import json, sys, time
import numpy as np
import mga_kernels
from mga_kernels import MaskGuidedSR

image, picture = np.load(sys.argv[1]), sys.argv[2]
print(json.dumps({"from": mga_kernels.__file__}), flush=True)
model = None
for line in sys.stdin:
    word, _, name = line.strip().partition(" ")
    if word == "load":
        model = MaskGuidedSR.from_pretrained(name, device="cpu")
        np.save(picture, model.upscale(image))
        print(json.dumps({"with": str(model.info()["photographs"])}), flush=True)
        continue
    clock, processor = time.perf_counter(), time.process_time()
    model.upscale(image)
    print(json.dumps([time.perf_counter() - clock, time.process_time() - processor]), flush=True)
"""


class Side:
    """A checkout and the process that runs it."""

    def __init__(self, checkout: Path, folder: Path, image: Path):
        self.checkout, self.picture = checkout.resolve(), folder / f"{len(list(folder.iterdir()))}.npy"
        if not list((self.checkout / "mga_kernels").glob("_C*.so")):
            sys.exit(f"compare_commits: {checkout} has no native library; build it there: setup.py build_ext --inplace")
        paths = [str(self.checkout), str(self.checkout / "python")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(image), str(self.picture)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = Path(self._answer()["from"])
        if not found.is_relative_to(self.checkout):
            sys.exit(f"compare_commits: for {checkout} Python imported {found}; is another one installed?")
        self.picture.touch()

    def load(self, model: str) -> str:
        return str(self.ask(f"load {model}")["with"])

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"compare_commits: {self.checkout} ended with status {self.process.wait()}; see above")
        return json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def turns(sides: list[Side], rounds: int) -> list[list[tuple[float, float]]]:
    """Seconds of the clock and of the processor, of each side and round."""
    times: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            times[which].append(tuple(sides[which].ask("run")))
    return times


def compare(sides: list[Side], model: str, rounds: int) -> float:
    """Print a line about the model; returns the ratio of the processor's seconds, the second over the first."""
    how = [side.load(model) for side in sides]
    before, after = (np.load(side.picture).astype(int) for side in sides)
    apart = int(np.abs(before - after).max()) if before.shape == after.shape else 255
    if apart > 1:
        sys.exit(f"compare_commits: {model}: the pictures differ by {apart} levels of 255; they are not the same work")
    first, second = turns(sides, rounds)
    ratios = [[b / a for a, b in zip(*both, strict=True)] for both in zip(first, second, strict=True)]
    clock, processor = (statistics.median(values) for values in zip(*ratios, strict=True))
    seconds = [statistics.median(clock for clock, _ in times) for times in (first, second)]
    print(f"{model:20} {seconds[0]:8.4f} {seconds[1]:8.4f} s, ", end="")
    print(f"{clock:6.3f} times of the clock, {processor:6.3f} of the processor")
    if how[0] != how[1]:
        print(f"{'':20} before: {how[0]}\n{'':20} after:  {how[1]}")
    return processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL", help="shipped ones by name, and files")
    parser.add_argument("--size", type=size_of, default=(480, 270), help="of the image, WIDTHxHEIGHT (default 480x270)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=1.03, help="the largest ratio that is taken (default 1.03)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "image.npy", test_image(*args.size))
        sides = [Side(checkout, folder, folder / "image.npy") for checkout in (args.before, args.after)]
        try:
            ratios = {model: compare(sides, model, args.rounds) for model in args.models}
        finally:
            for side in sides:
                side.end()
    slower = [model for model, ratio in ratios.items() if ratio > args.limit]
    if slower:
        print(f"slower than {args.limit:g} times: {', '.join(slower)}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
