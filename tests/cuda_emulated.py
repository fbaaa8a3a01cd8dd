"""The CUDA kernels as a library for the CPU, by the emulation in tests/cuda_emulation: no GPU, but NVIDIA's headers.

What it cannot show (launches, streams, races between blocks, speed) is left to the tests marked ``cuda``.
MGA_EMULATION_FLAGS adds to the flags of the compiler, for a sanitizer or a planted fault.
"""

from __future__ import annotations

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


@functools.cache
def build(flags: str) -> Path:
    toolkit = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    compiler = shutil.which("g++")
    if not (toolkit / "include/cuda_fp16.h").exists() or compiler is None:
        pytest.skip("needs the headers of a CUDA toolkit and g++")
    folder = Path(tempfile.mkdtemp(prefix="mga-emulation-"))
    include = [f"-I{CSRC}", f"-I{HERE / 'cuda_emulation'}", "-isystem", str(toolkit / "include")]
    command = [compiler, "-std=c++17", "-O1", "-fPIC", *include, *flags.split()]
    sources = [*sorted(CSRC.glob("*.cu")), HERE / "cuda_emulation/bindings.cpp"]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        subprocess.run([*command, "-DMGA_CPU_EMU", "-x", "c++", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    subprocess.run([*command, "-shared", *objects, "-o", folder / "emulated.so"], check=True)
    return folder / "emulated.so"


@pytest.fixture
def library():
    loaded = ctypes.CDLL(str(build(os.environ.get("MGA_EMULATION_FLAGS", ""))))
    loaded.fault.restype = ctypes.c_char_p
    loaded.filter_and_select_workspace.restype = ctypes.c_int64
    return loaded


@pytest.fixture(params=["fwd", "rev", "7"])
def thread_order(request):
    """The order in which blocks run, and threads between two barriers."""
    libc = ctypes.CDLL(None)
    libc.setenv(b"EMU_ORDER", request.param.encode(), 1)
    yield
    libc.unsetenv(b"EMU_ORDER")


@pytest.fixture
def gpu():
    """gpu(multiprocessors=..., shared_bytes=...) changes the GPU that the emulation plays, for one test."""
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
