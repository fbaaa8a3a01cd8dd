"""The CUDA kernels as a library for the CPU, by the emulation in tests/cuda_emulation: no GPU, but NVIDIA's headers.

What it cannot show (launches, streams, races between blocks, speed) is left to the tests marked ``cuda``.
MGA_EMULATION_FLAGS adds to the flags of the compiler, for a sanitizer or a planted fault.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mga_kernels import ops

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"


def compiler_command(csrc: Path) -> list[str]:
    toolkit = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    compiler = shutil.which("g++")
    if not (toolkit / "include/cuda_fp16.h").exists() or compiler is None:
        pytest.skip("needs the headers of a CUDA toolkit and g++")
    include = [f"-I{csrc}", f"-I{HERE / 'cuda_emulation'}", "-isystem", str(toolkit / "include")]
    flags = os.environ.get("MGA_EMULATION_FLAGS", "").split()
    return [compiler, "-std=c++17", "-O1", "-fPIC", "-DMGA_CPU_EMU", *flags, *include]


def compile_one(source: Path, folder: Path, csrc: Path = CSRC) -> Path:
    target = folder / f"{source.name}.o"
    subprocess.run([*compiler_command(csrc), "-x", "c++", "-c", source, "-o", target], check=True)
    return target


def link(parts: list[Path], output: Path) -> Path:
    flags = os.environ.get("MGA_EMULATION_FLAGS", "").split()
    subprocess.run(["g++", *flags, "-shared", *parts, "-o", output], check=True)
    return output


def load(output: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(output))
    loaded.fault.restype = ctypes.c_char_p
    loaded.filter_and_select_workspace.restype = ctypes.c_int64
    return loaded


@functools.cache
def objects() -> tuple[Path, ...]:
    """Every kernel and the bindings, compiled once a process."""
    compiler_command(CSRC)  # skips where it cannot work
    folder = Path(tempfile.mkdtemp(prefix="mga-emulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sources = [*sorted(CSRC.rglob("*.cu")), HERE / "cuda_emulation/bindings.cpp"]
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(lambda source: compile_one(source, folder), sources))


@functools.cache
def loaded_library() -> ctypes.CDLL:
    return load(link(list(objects()), objects()[0].with_name("emulated.so")))


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


@pytest.fixture
def emulated_gpu():
    """emulated_gpu(multiprocessors=..., shared_bytes=...) changes the GPU that the emulation plays, for one test."""
    libc = ctypes.CDLL(None)

    def play(**facts: int) -> None:
        for name, value in facts.items():
            libc.setenv(f"EMU_{name.upper()}".encode(), str(value).encode(), 1)

    yield play
    for name in ("EMU_MULTIPROCESSORS", "EMU_SHARED_BYTES"):
        libc.unsetenv(name.encode())


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
