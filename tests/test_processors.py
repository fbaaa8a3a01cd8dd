"""How many processors there are for this process, read from a made-up tree of control groups, and who heeds it."""

import math

import numpy as np
import pytest
import torch
from control_groups import write_groups
from network_zoo import random_model

from mga_kernels import MaskGuidedSR
from mga_kernels.system import threads


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)

    return lambda group, files: threads.processors(*write_groups(tmp_path, group, files))


@pytest.mark.parametrize(
    ("group", "files", "found"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "250000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "150000\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 3),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "what\n"}, 8),
        ("", {}, 8),
    ],
)
def test_the_tightest_quota_counts(tree, group, files, found):
    assert tree(group, files) == found


def test_without_control_groups_all_processors_are_there(tmp_path):
    assert threads.processors(tmp_path, tmp_path) >= 1


def test_photographs_are_run_by_no_more_threads(monkeypatch):
    if threads._openmp("omp_set_num_threads") is None:
        pytest.skip("this PyTorch has no OpenMP")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "processors", lambda: 2)
    monkeypatch.setattr(threads, "_known", (-math.inf, 1))
    try:
        model = MaskGuidedSR(random_model("fsrcnn", 2), k=3)
        seen = []
        real = model._runner.plan
        monkeypatch.setattr(model._runner, "plan", lambda *size: seen.append(torch.get_num_threads()) or real(*size))
        model.upscale(np.zeros((20, 20, 3), np.uint8))
        model.warmup(20, 20)
        assert seen
        assert set(seen) == {2}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_quota_is_looked_up_again_after_a_while(monkeypatch):
    allowed, now = [3, 2], 100.0
    monkeypatch.setattr(threads, "_at_most", lambda count: count)
    monkeypatch.setattr(threads, "processors", lambda: allowed.pop(0))
    monkeypatch.setattr(threads, "_known", (-math.inf, 1))
    for later, expected in ((0, 3), (0.9 * threads.LASTS, 3), (threads.LASTS, 2), (1.5 * threads.LASTS, 2)):
        monkeypatch.setattr(threads.time, "monotonic", lambda at=now + later: at)
        assert threads.allowed_threads() == expected
