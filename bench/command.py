"""Seconds of the whole command `mga upscale`, of two checkouts of this project in turns.

    python bench/command.py ../before . [--model span-x4] [--sizes 48x36 960x540] [--rounds 7]

From the start of the process to its end: imports, weights, reading, the network, writing a PNG. Before the first round
each checkout runs once, so that bytecode and files are there; the pictures of both may differ by one level. In each
round both run, one after the other, and who begins changes from round to round. Medians of the clock and of the
processor, and the medians of the ratios of each round.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from compare_commits import turns
from images import size_of, test_image
from PIL import Image


class Command:
    """The command of a checkout, which makes ``picture`` of ``image``."""

    def __init__(self, checkout: Path, image: Path, picture: Path, model: str):
        paths = [str(checkout.resolve()), str(checkout.resolve() / "python")]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.folder, self.picture = image.parent, picture
        self.words = [sys.executable, "-m", "mga", "upscale", str(image), "-o", str(picture), "--model", model]

    def ask(self, what: str) -> tuple[float, float]:
        """Seconds of the clock and of the processor."""
        self.picture.unlink(missing_ok=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(self.words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"command: {' '.join(self.words)}: {done.stderr.strip()}")
        return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(commands: list[Command], name: str, rounds: int) -> None:
    """Print a line about the image."""
    for command in commands:
        command.ask("run")
    one, other = (np.asarray(Image.open(command.picture)).astype(int) for command in commands)
    if one.shape != other.shape or np.abs(one - other).max() > 1:
        sys.exit(f"command: {name}: the pictures differ; they are not the same work")
    sides = turns(commands, rounds)
    for place, what in enumerate(("clock", "processor")):
        before, after = ([times[place] for times in side] for side in sides)
        ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
        print(f"{name:12} {statistics.median(before):8.3f} {statistics.median(after):8.3f} s of the {what}, ", end="")
        print(f"{ratio:.3f} times", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--model", default="span-x4", help="a shipped one by name, or a file")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[(48, 36), (960, 540)], help="WIDTHxHEIGHT, ...")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width, height in args.sizes:
            image = folder / f"{width}x{height}.png"
            Image.fromarray(test_image(width, height)).save(image)
            asked = [(args.before, folder / "before.png"), (args.after, folder / "after.png")]
            compare([Command(checkout, image, out, args.model) for checkout, out in asked], image.stem, args.rounds)


if __name__ == "__main__":
    main()
