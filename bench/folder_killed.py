"""A folder of many images, upscaled by a command that is killed twice: what is there in the end, and how much memory.

    python bench/folder_killed.py [--files 10000] [--model fsrcnn-x2] [--kills 2]

Makes the folder, starts `mga upscale FOLDER --skip-existing`, ends it by SIGKILL when a third of the results are there
and again at two thirds, and lets it finish then. Every result is opened and compared with the image that it must be;
anything else in their folder is an error. Prints the memory of each process (its resident pages) at the 200th image
that it made, and the most after that.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "mga", "upscale"]
SETTLED = 200  # images after which memory must be flat
DIFFERENT = 50  # pictures; the other files are the same ones under other names
MIB = 1 << 20


@dataclass
class Run:
    """``made``: results of one process; ``settled`` and ``most``: bytes at the ``SETTLED``-th of them, and after it."""

    made: int
    settled: int
    most: int
    status: int

    @property
    def grown(self) -> int:
        return self.most - self.settled if self.settled else 0


def make_images(folder: Path, files: int) -> None:
    """Images 000000.png .. of two sizes, so that more than one plan is made."""
    folder.mkdir()
    for number in range(files):
        name, original = folder / f"{number:06}.png", folder / f"{number % DIFFERENT:06}.png"
        if number >= DIFFERENT:
            name.write_bytes(original.read_bytes())
            continue
        shape = (12, 16, 3) if number % 5 else (16, 12, 3)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)).save(name)


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def count(results: Path) -> int:
    return sum(not entry.name.startswith(".") for entry in os.scandir(results)) if results.is_dir() else 0


def run(images: Path, results: Path, model: str, until: int | None, wait: float = 0.02) -> Run:
    """One process, killed when there are ``until`` results."""
    before, settled, most = count(results), 0, 0
    command = [*COMMAND, str(images), "-o", str(results), "--model", model, "--skip-existing"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            made, bytes_now = count(results) - before, resident(process.pid)
            if made >= SETTLED:
                settled, most = settled or bytes_now, max(most, bytes_now)
            if until is not None and before + made >= until:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(wait)
    return Run(count(results) - before, settled, most, process.returncode)


def faults(images: Path, results: Path) -> list[str]:
    """What is wrong with the results: each of them whole, once, and that of its image; nothing else there."""
    names = {path.name for path in images.iterdir()}
    found = {path.name for path in results.iterdir()}
    wrong = [f"{name} is missing" for name in sorted(names - found)] + [f"{name} is too much" for name in found - names]
    expected: dict[str, bytes] = {}
    for name in sorted(names & found):
        original = f"{int(name[:-4]) % DIFFERENT:06}.png"
        try:
            with Image.open(results / name) as image:
                pixels = image.convert("RGB").tobytes()
        except (OSError, SyntaxError) as problem:
            wrong.append(f"{name} is half written ({problem})")
            continue
        if expected.setdefault(original, pixels) != pixels:
            wrong.append(f"{name} is not what {original} is")
    return wrong


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--model", default="fsrcnn-x2")
    parser.add_argument("--kills", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        images, results = Path(folder) / "images", Path(folder) / "results"
        make_images(images, options.files)
        for number in range(options.kills + 1):
            until = options.files * (number + 1) // (options.kills + 1) if number < options.kills else None
            started = time.perf_counter()
            done = run(images, results, options.model, until)
            what = "was killed" if done.status == -signal.SIGKILL else f"ended with status {done.status}"
            line = f"run {number + 1} {what} after {done.made:,} images, {time.perf_counter() - started:.0f} s"
            if done.settled:
                line += f"; {done.settled / MIB:.0f} MiB at image {SETTLED}, at most {done.grown / MIB:.1f} more later"
            print(line, flush=True)
        wrong = faults(images, results)
        left = [path.name for path in results.iterdir() if path.name.startswith(".")]
    if wrong or left:
        raise SystemExit("\n".join(wrong[:20]) or f"left behind: {left}")
    print(f"{options.files:,} of {options.files:,} results are there, each once, whole and right; nothing else is")


if __name__ == "__main__":
    main()
