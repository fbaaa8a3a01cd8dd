"""Triton reads once in a process whether it interprets, so its tests have processes of their own."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def run_kernel_tests(forks, *options, **environment):
    names = "triton_kernels", "triton_pixels", "triton_high_pass", "triton_operators", "triton_plans"
    files = [HERE / f"{name}.py" for name in names]
    result = forks.pytest("-x", *options, *files, MGA_BACKEND=None, **environment)
    assert result.returncode == 0, result.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) > 70


def against_the_interpreter() -> str | None:
    """Why Triton's interpreter cannot run here, or None."""
    try:
        int(np.zeros(1))
    except TypeError:
        return f"NumPy {np.__version__} makes no number of an array, which Triton's interpreter wants of it"
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
def test_in_the_interpreter(forks):
    if reason := against_the_interpreter():
        pytest.skip(reason)
    run_kernel_tests(forks, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_the_gpu(forks):
    """By several processes, since nearly all of the time goes to compilers."""
    together = [] if find_spec("xdist") is None else ["-n", str(min(12, os.cpu_count() or 1)), "--dist", "load"]
    run_kernel_tests(forks, *together, TRITON_INTERPRET="0")


def cases(forks, **environment):
    """The number of cases in triton_kernels.py, which are collected as a GPU would have them and not run."""
    done = forks.pytest("--collect-only", HERE / "triton_kernels.py", TRITON_INTERPRET="0", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"(\d+) tests collected", done.stdout)[1])


def test_a_gpu_compiles_a_third_of_the_cases_unless_asked_for_all(forks):
    assert cases(forks, MGA_ALL_TRITON_CASES="") < 0.6 * cases(forks, MGA_ALL_TRITON_CASES="1")
