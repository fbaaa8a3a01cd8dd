"""How soon `mga upscale FOLDER` comes to its first image where the folder holds many.

    python bench/folder_start.py [--files 20000] [--model fsrcnn-x2] [--skip-existing]

Makes the folder, of one small image under many names, starts the command, and ends it when the first result lies there
whole. Prints the seconds from the start of the command to that, by the clock and of the processor; PyTorch alone takes
three of them. With --skip-existing all results but the last lie there already.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "mga", "upscale"]
LIMIT = 300  # seconds


def make_folders(folder: Path, files: int, existing: bool) -> tuple[Path, Path]:
    """Images 000000.png .. to be upscaled, and where to."""
    images, results = folder / "images", folder / "results"
    images.mkdir()
    results.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(images / "000000.png")
    content = (images / "000000.png").read_bytes()
    for number in range(files):
        (images / f"{number:06}.png").write_bytes(content)
        if existing and number < files - 1:
            (results / f"{number:06}.png").write_bytes(content)
    return images, results


def processor_seconds(pid: int) -> float:
    """Of a process that runs, all its threads."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(files: int, model: str, existing: bool) -> tuple[float, float]:
    """Seconds by the clock and of the processor, until the first result is whole."""
    with tempfile.TemporaryDirectory() as folder:
        images, results = make_folders(Path(folder), files, existing)
        awaited = results / f"{files - 1 if existing else 0:06}.png"
        command = [*COMMAND, str(images), "-o", str(results), "--model", model]
        command += ["--skip-existing"] if existing else []
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not awaited.exists():
                    if process.poll() is not None or time.perf_counter() - started > LIMIT:
                        raise SystemExit(f"{' '.join(command)}: no result, status {process.poll()}")
                    time.sleep(0.01)
                return time.perf_counter() - started, processor_seconds(process.pid)
            finally:
                process.terminate()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--model", default="fsrcnn-x2")
    parser.add_argument("--skip-existing", action="store_true", help="all results but the last exist")
    options = parser.parse_args(arguments)
    clock, processor = measure(options.files, options.model, options.skip_existing)
    print(f"{options.files:,} files: the first result after {clock:.1f} s, {processor:.1f} s of the processor")


if __name__ == "__main__":
    main()
