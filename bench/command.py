"""Seconds of the whole command `mga upscale`, of two checkouts of this project in turns.

    python bench/command.py ../before . [--model span-x4] [--sizes 48x36 960x540] [--rounds 7] [--held avx2]

From the start of the process to its end: imports, weights, reading a JPEG, the network, writing a PNG. Before the first
round each checkout runs once, so that bytecode and files are there. With --model both run this one, and their pictures
may differ by one level; without it each runs what it takes of itself, and the pictures are of one size. In each round
both run, one after the other, and who begins changes from round to round. Medians of the clock and of the processor,
and the medians of the ratios of each round.

--held avx2 does on any processor of x86-64 what is done on one without AVX-512: our kernels, PyTorch's, oneDNN's and
MKL's are held to AVX2, and the network runs in float32. Our kernels of before MGA_CPU_ISA held all of them would still
run in bf16 otherwise, and such a processor has none that are fast. NumPy, Pillow and zlib are left as they are.
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
from held import HELD, add_held
from images import size_of, test_image
from PIL import Image

QUALITY = 92  # of the JPEG


class Command:
    """The command of a checkout, which makes ``picture`` of ``image``, by ``model`` or by what it takes without one."""

    def __init__(self, checkout: Path, image: Path, picture: Path, model: str | None, held: str | None = None):
        paths = [str(checkout.resolve()), str(checkout.resolve() / "python")]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | HELD.get(held or "", {})
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.folder, self.picture = image.parent, picture
        self.words = [sys.executable, "-m", "mga", "upscale", str(image), "-o", str(picture)]
        self.words += [] if model is None else ["--model", model]
        self.words += [] if held is None else ["--dtype", "float32"]

    def ask(self, what: str) -> tuple[float, float]:
        """Seconds of the clock and of the processor."""
        self.picture.unlink(missing_ok=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(self.words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"command: {' '.join(self.words)}: {done.stderr.strip()}")
        return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(commands: list[Command], name: str, rounds: int, alike: bool = True) -> None:
    """Print a line about the image. ``alike``: the pictures are those of one model."""
    for command in commands:
        command.ask("run")
    one, other = (np.asarray(Image.open(command.picture)).astype(int) for command in commands)
    if one.shape != other.shape or (alike and np.abs(one - other).max() > 1):
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
    parser.add_argument("--model", help="a shipped one by name, or a file (default: what each checkout takes)")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[(48, 36), (960, 540)], help="WIDTHxHEIGHT, ...")
    parser.add_argument("--rounds", type=int, default=7)
    add_held(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width, height in args.sizes:
            image = folder / f"{width}x{height}.jpg"
            Image.fromarray(test_image(width, height)).save(image, quality=QUALITY)
            asked = [(args.before, folder / "before.png"), (args.after, folder / "after.png")]
            both = [Command(checkout, image, out, args.model, args.held) for checkout, out in asked]
            compare(both, image.stem, args.rounds, alike=args.model is not None)


if __name__ == "__main__":
    main()
