"""Commands that end when their time is up, with all that they started, and what a machine with a GPU is."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "triton", "numpy", "setuptools", "ninja", "pybind11", "pytest", "pytest-xdist", "safetensors")
LAST_WORDS = 5.0  # seconds in which what an ended command has printed is read


class StageFailed(Exception):
    """One line that says what went wrong; ``output`` is all that a command printed."""

    output = ""


class Stopped(StageFailed):
    """At its limit. ``last`` is what the command printed last."""

    def __init__(self, command: list[str], limit: float, output: str):
        self.output, self.last = output, last_line(output)
        super().__init__(f"`{' '.join(command)}` stopped after {limit:g} s: {self.last}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def environment(**extra: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "python"), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}


def output_of(*command: str) -> str | None:
    """What a command prints, or None where it is missing or fails."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def run(command: list[str], limit: float, **extra: str) -> str:
    """Run in the repository, show the output as it comes, and return it. Raises StageFailed on failure.

    After ``limit`` seconds the command is killed, which is a failure too: Stopped. Whatever it started goes with it, at
    its limit, at its end, and when this process is interrupted or told to end.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # a group of its own in this POSIX session: who ends that, when this is killed, ends it
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)

    reader = threading.Thread(target=read, daemon=True)  # who left the group and lives on may hold the pipe open
    reader.start()
    late = False
    try:
        status = process.wait(max(0.0, limit))
    except subprocess.TimeoutExpired:
        late = True
    finally:
        kill_group(process)
    reader.join(LAST_WORDS)
    output = "".join(lines)
    if late:
        raise Stopped(command, limit, output)
    if status:
        failure = StageFailed(f"`{' '.join(command)}` ended with status {status}: {last_line(output)}")
        failure.output = output
        raise failure
    return output


def kill_group(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # nobody is left
        pass
    process.wait()


def end_on_sigterm() -> None:
    """Let what asks this process to end (``timeout`` does) also end what it has started."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def whole_record(path: Path, record: dict[str, Any]) -> None:
    """The file appears whole or not at all, so that who is killed leaves what was there before."""
    part = path.with_suffix(".new")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


class Clock:
    """What is left of some seconds."""

    def __init__(self, seconds: float):
        self.until = time.monotonic() + seconds

    def left(self) -> float:
        return self.until - time.monotonic()


def toolkit() -> Path | None:
    """Root of the CUDA toolkit: CUDA_HOME, CUDA_PATH, where nvcc really lies, /usr/local/cuda."""
    nvcc = shutil.which("nvcc")
    beside = str(Path(nvcc).resolve().parent.parent) if nvcc else None
    for place in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), beside, "/usr/local/cuda"):
        if place and (Path(place) / "bin/nvcc").exists() and (Path(place) / "include/cuda_runtime.h").exists():
            return Path(place)
    return None


def build_environment() -> dict[str, str]:
    """What the build is told: the toolkit that was found, and to compile for the GPUs at hand only."""
    import torch

    found = toolkit()
    told = {"MGA_CUDA": "1", **({} if found is None else {"CUDA_HOME": str(found)})}
    if not os.environ.get("MGA_CUDA_ARCHS"):
        capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        told["MGA_CUDA_ARCHS"] = ";".join(f"{major}{minor}" for major, minor in sorted(capabilities))
    return told


def versions() -> dict[str, str]:
    """Of the packages that the stages need, "missing" where there is none."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def stamp(device: str = "cuda") -> dict[str, Any]:
    """What was measured, on what and with what. MGA_COMMIT names the commit of a copy without a history."""
    import torch

    driver = output_of("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader")
    on_gpu, root = device == "cuda", toolkit()
    compiler = output_of(str(root / "bin/nvcc"), "--version") if root else None
    release = re.search(r"release .*", compiler or "")
    return {
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if on_gpu else None,
        "driver, SM clock, power limit": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "python": platform.python_version(),
        "Python.h": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
        "packages": versions(),
        "nvcc": release[0] if release else None,
        "C++ compiler": last_line((output_of(os.environ.get("CXX", "g++"), "--version") or "").split("\n")[0]) or None,
        "cores": os.cpu_count(),
        "commit": os.environ.get("MGA_COMMIT") or output_of("git", "rev-parse", "HEAD"),
        "changed files": output_of("git", "status", "--porcelain", "--untracked-files=no"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
