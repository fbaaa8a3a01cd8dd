"""That the emulation finds faults: a kernel with one line taken out no longer passes the check that it passes whole."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import test_cuda_conv_chain
import test_cuda_filter_and_select
import test_cuda_paste_shuffled
import torch
from cuda_emulated import CSRC, compile_one, link, load, loaded_library, objects

HERE = Path(__file__).resolve().parent
ORDERS = ("fwd", "rev", "7")


def chain(library):
    generator = torch.Generator().manual_seed(1)
    patches, weights, *factors = test_cuda_conv_chain.chain(3, 16, 6, 3, torch.float16, generator)
    patches = patches.contiguous(memory_format=torch.channels_last)
    arguments = patches, test_cuda_conv_chain.inner_channels(weights), *factors, [-1, -1, 1], 1
    test_cuda_conv_chain.check(test_cuda_conv_chain.run(library, *arguments), *arguments)


def selection(library):
    generator = torch.Generator().manual_seed(2)
    probability = torch.rand(1, 30, 41, generator=generator)
    weight, bias = test_cuda_filter_and_select.filters(3, 1, generator)
    test_cuda_filter_and_select.check(library, probability, probability[:, None], weight, bias, 300)


def shuffle(library):
    inputs = test_cuda_paste_shuffled.inputs(torch.Generator().manual_seed(3), torch.uint8, torch.float16)
    test_cuda_paste_shuffled.check(library, *inputs, 4)


FAULTS = {
    "the output of a layer over its input": (
        "conv_chain_f16.cu",
        "    __syncthreads();  // all have read the states of this layer: its output may take the place of one\n",
        chain,
    ),
    "a tap used before it has come": ("conv_chain_f16.cu", "      wait_copies<kChainStages - 2>();\n", chain),
    "states of a layer read before they are there": (
        "conv_chain_f16.cu",
        "      __syncthreads();  // the tap is there for all, and nobody uses the buffer of the one before any more\n",
        chain,
    ),
    "digits counted before the histogram is empty": (
        "filter_and_select.cu",
        "  for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) scratch.histogram[d] = 0;\n  __syncthreads();\n",
        selection,
    ),
    "a digit sought before all are counted": (
        "filter_and_select.cu",
        "      });\n      __syncthreads();\n    }\n    find_digit",
        selection,
    ),
    "cells written before the patch is staged": (
        "paste_shuffled.cu",
        "      stage(patches, p, first, group, staged);\n      __syncthreads();\n",
        shuffle,
    ),
}


def without(line: str, folder: Path) -> None:
    """A copy of the sources in which the last line of ``line``, a barrier or wait, is missing."""
    shutil.copytree(CSRC, folder)
    found = 0
    for path in (*folder.rglob("*.cu"), *folder.rglob("*.cuh")):
        text = path.read_text()
        found += text.count(line)
        statement = "wait_copies<kChainStages - 2>();" if "wait_copies" in line else "__syncthreads();"
        path.write_text(text.replace(line, line.replace(statement, "")))
    assert found == 1, "the sources have changed: name the line anew"


def look_for_faults(*libraries: str) -> None:
    """Prints, of the library of every fault, the status with which a check of it in all orders ends a process."""
    torch.set_num_threads(1)  # other threads would be missing in the processes that are forked
    libc = ctypes.CDLL(None)
    for path, (_, _, check) in zip(libraries, FAULTS.values(), strict=True):
        if (child := os.fork()) == 0:
            found = 0
            for order in ORDERS:
                libc.setenv(b"EMU_ORDER", order.encode(), 1)
                try:
                    check(load(Path(path)))
                except AssertionError:
                    found = 3
            os._exit(found)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.fixture(scope="module")
def statuses(tmp_path_factory) -> dict[str, int]:
    """name of a fault -> how the check of it ended; all in one process, apart from this one, that PyTorch starts in."""
    libraries = []
    for number, (source, line, check) in enumerate(FAULTS.values()):
        check(loaded_library())
        folder = tmp_path_factory.mktemp(f"fault{number}")
        without(line, folder / "csrc")
        (path,) = (folder / "csrc").rglob(source)
        faulty = compile_one(path, folder, folder / "csrc")
        parts = [faulty if whole.name == faulty.name else whole for whole in objects()]
        libraries.append(link(parts, folder / "faulty.so"))
    code = "import sys, test_cuda_faults; test_cuda_faults.look_for_faults(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code, *libraries], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return dict(zip(FAULTS, map(int, result.stdout.split()), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_a_missing_barrier_is_found(name, statuses):
    # A rank that was counted wrong may also lead outside the memory.
    assert statuses[name] in (3, -signal.SIGSEGV, -signal.SIGABRT)


@pytest.mark.slow
def test_no_access_outside_memory():
    """The same tests under AddressSanitizer, in a process of their own."""
    asan = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    stdcxx = subprocess.run(["g++", "-print-file-name=libstdc++.so"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{asan.strip()}:{stdcxx.strip()}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONMALLOC": "malloc",
        "MGA_EMULATION_FLAGS": "-fsanitize=address -g1",
    }
    names = "conv_chain", "emulation", "filter_and_select", "paste_shuffled"
    tests = [f"tests/test_cuda_{name}.py" for name in names]
    # bf16 lies in memory as float16 does; a hundred multiprocessors make for the blocks that most other tests have.
    types = "dtype1", "dtype3", "source_type1", "weight_type1"
    left_out = "rev", "7-", *types, "every_size_of_block[100", "fwd-5-shape"
    chosen = " and ".join(f"not {name}" for name in left_out)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *tests]
    result = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout
