"""The CUDA kernels as a library for the CPU, by the emulation in tests/cuda_emulation: no GPU, but NVIDIA's headers.

What it cannot show (launches, streams, speed) is left to the tests marked ``cuda``; races are sought by cuda_races.py.
MGA_EMULATION_FLAGS adds to the flags of the compiler, for a sanitizer or a planted fault. What is compiled is kept in
build/emulation under the hash of all that it depends on, since compiling costs more than all tests of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from mga_kernels import ops

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
KEPT = HERE.parent / "build/emulation"


def compiler_command(csrc: Path) -> list[str]:
    toolkit = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    compiler = shutil.which("g++")
    if not (toolkit / "include/cuda_fp16.h").exists() or compiler is None:
        pytest.skip("needs the headers of a CUDA toolkit and g++")
    include = [f"-I{csrc}", f"-I{HERE / 'cuda_emulation'}", "-isystem", str(toolkit / "include")]
    flags = os.environ.get("MGA_EMULATION_FLAGS", "").split()
    return [compiler, "-std=c++17", "-O1", "-fPIC", "-DMGA_CPU_EMU", *flags, *include]


def environment() -> dict[str, str]:
    """For compilers, without the sanitizers of this process: they need none, and would take three times as long."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def compile_headers(folder: Path, csrc: Path, *flags: str) -> None:
    """What all kernels include, CUDA's headers above all, which take longer to read than most kernels to compile.

    For ``compile_one`` of kernels in the same folder with the same flags.
    """
    (folder / "all.h").write_text('#include "cuda/launch.cuh"\n')
    command = [*compiler_command(csrc), *flags, "-x", "c++-header", folder / "all.h", "-o", folder / "all.h.gch"]
    subprocess.run(command, check=True, env=environment())


def compile_one(source: Path, folder: Path, csrc: Path = CSRC, *flags: str) -> Path:
    target = folder / f"{source.name}.o"
    headers = ["-include", folder / "all.h"] if source.suffix == ".cu" else []
    command = [*compiler_command(csrc), *flags, *headers, "-x", "c++", "-c", source, "-o", target]
    subprocess.run(command, check=True, env=environment())
    return target


def link(parts: list[Path], output: Path) -> Path:
    flags = os.environ.get("MGA_EMULATION_FLAGS", "").split()
    subprocess.run(["g++", *flags, "-shared", *parts, "-o", output], check=True, env=environment())
    return output


def load(output: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(output))
    loaded.fault.restype = ctypes.c_char_p
    loaded.filter_and_select_workspace.restype = ctypes.c_int64
    return loaded


def with_headers(sources: list[Path]) -> list[Path]:
    """These files and all of ours that they include."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        if (path := waiting.pop()) not in found:
            found.add(path)
            names = re.findall(r'^ *# *include "(.+)"', path.read_text(), re.MULTILINE)
            folders = path.parent, CSRC, HERE / "cuda_emulation"
            waiting += [folder / name for name in names for folder in folders if (folder / name).exists()]
    return sorted(found)


def everything_that_matters(sources: list[Path], *flags: str) -> str:
    """The hash of sources, headers, flags and compiler."""
    command = [*compiler_command(CSRC), *flags]
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True, env=environment()).stdout
    found = hashlib.sha256(version + repr(command).encode())
    for path in with_headers(sources):
        found.update(f"{path.relative_to(HERE.parent)} {path.stat().st_size} ".encode() + path.read_bytes())
    return found.hexdigest()[:16]


@contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """The others, of this run or another, wait."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(sources: list[Path], flags_of: Callable[[Path], list[str]], *flags: str) -> tuple[Path, ...]:
    """These files, compiled if no process has done so since anything was changed, and linked to emulated.so."""
    folder = KEPT / everything_that_matters(sources, *flags)  # skips where it cannot work
    whole = folder / "emulated.so"
    with one_process_at_a_time():
        if not whole.exists():
            folder.mkdir(exist_ok=True)
            compile_headers(folder, CSRC, *flags)
            with ThreadPoolExecutor(2) as pool:
                parts = list(pool.map(lambda source: compile_one(source, folder, CSRC, *flags_of(source)), sources))
            (folder / "all.h.gch").unlink()  # tens of MiB
            os.replace(link(parts, folder / "part.so"), whole)
    return tuple(folder / f"{source.name}.o" for source in sources)


BINDINGS = HERE / "cuda_emulation/bindings.cpp"


@functools.cache
def objects() -> tuple[Path, ...]:
    """Every kernel and the bindings."""
    return kept([*sorted(CSRC.rglob("*.cu")), BINDINGS], lambda source: [])


@functools.cache
def loaded_library() -> ctypes.CDLL:
    return load(objects()[0].with_name("emulated.so"))


@pytest.fixture
def emulation():
    return loaded_library()


@pytest.fixture(params=["fwd", "rev", "7"])
def thread_order(request):
    """The order in which blocks run, and threads between two barriers."""
    libc = ctypes.CDLL(None)
    libc.setenv(b"EMU_ORDER", request.param.encode(), 1)
    yield
    libc.unsetenv(b"EMU_ORDER")


def start(library, kernel: str, *arguments) -> int:
    """Tensors go by pointer, tuples as int64 arrays, the rest as ctypes has it; the launcher's status."""

    def c(value):
        if isinstance(value, torch.Tensor):
            return ctypes.c_void_p(value.data_ptr())
        return (ctypes.c_int64 * len(value))(*value) if isinstance(value, tuple) else value

    return getattr(library, kernel)(*map(c, arguments))


def launch(library, kernel: str, *arguments) -> None:
    status = start(library, kernel, *arguments)
    assert status == 0, library.fault().decode() if status == -1 else f"status {status}"


def reference(op: str, *arguments):
    return ops.operators()[op].backends["reference"].run(*arguments)
