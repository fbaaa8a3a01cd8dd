"""The benchmarks' own claims: they check what they time, and the GPU script refuses a machine without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mga_kernels import ops

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def workloads(monkeypatch):
    """The module, at a size that takes no time."""
    monkeypatch.syspath_prepend(str(BENCH))
    import workloads

    for name, value in {"HEIGHT": 48, "WIDTH": 64, "ROWS": 12, "COLUMNS": 16, "CELLS": 192}.items():
        monkeypatch.setattr(workloads, name, value)
    monkeypatch.setattr(workloads, "COUNTS", {"some": 20, "all": 192})
    return workloads


@pytest.mark.parametrize(
    "name",
    ["select_patches", "gather_patches", "paste_patches", "paste_shuffled", "image_to_input", "output_to_image"],
)
def test_a_wrong_result_is_not_timed(workloads, name, monkeypatch):
    workload = getattr(workloads, name)("some", "cpu")
    workload.check()
    backend = ops.operators()[workload.op].backends["cpu"]
    right = backend.run

    def wrong(*arguments):
        result = right(*arguments)
        result[(0,) * result.ndim] += 1
        return result

    monkeypatch.setattr(backend, "run", wrong)
    with pytest.raises(AssertionError, match="not that of the reference"):
        workload.check()


def test_a_wrong_mask_is_not_timed(workloads, monkeypatch):
    workload = workloads.mask_head("softmax-then-pool", "cpu")
    workload.check()
    backend = ops.operators()["mask_head"].backends["cpu"]
    right = backend.run
    monkeypatch.setattr(backend, "run", lambda *a: right(*a) + 0.01)
    with pytest.raises(AssertionError, match="not close"):
        workload.check()


def test_bytes_of_gather_are_those_it_touches(workloads):
    """Counted again by gathering pixel numbers and looking which ones come out."""
    height, width = workloads.HEIGHT, workloads.WIDTH
    number = torch.arange(1.0, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    for case, k in workloads.COUNTS.items():
        indices = ops.select_patches(workloads._mask("cpu"), k)
        seen = ops.gather_patches(number, indices, 4, 1).unique()
        read = int((seen > 0).sum()) * workloads.CHANNELS * 4
        written = k * workloads.CHANNELS * 36 * 4
        assert workloads.gather_patches(case, "cpu").bytes_moved == read + written


def gpu_script(*arguments, **environment):
    command = [sys.executable, BENCH / "gpu.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_gpu_script_lists_its_stages():
    result = gpu_script("--dry-run")
    assert result.returncode == 0, result.stderr
    stages = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert stages == ["build", "tests", "sanitizer", "kernels", "engine"]
    assert gpu_script("engine", "build", "--dry-run").stdout.splitlines()[1].startswith("engine: rfdn-x4 at 960x540")


def test_gpu_script_refuses_a_machine_without_gpu(tmp_path):
    result = gpu_script("--out", str(tmp_path / "results"), CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "torch finds no NVIDIA GPU here" in result.stderr
    assert not (tmp_path / "results").exists()
