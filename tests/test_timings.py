"""Times that are kept: by what they depend on, in a file that can stop no run; and memory that runs out meanwhile."""

from __future__ import annotations

import json
import math
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from network_zoo import random_model

from mga_kernels import MaskGuidedSR
from mga_kernels.engine import choice, timings
from mga_kernels.errors import OutOfMemoryError
from mga_kernels.runtimes.pytorch.modules import ModulePlan
from mga_kernels.runtimes.tiles.budget import Budget
from mga_kernels.system import kept

SIZE = 40, 52


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache file of the test's own, and few runs of what is measured."""
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "TIMINGS", timings.Timings())
    monkeypatch.setattr(timings, "ENOUGH", 0)
    return tmp_path / "cache" / "timings.json"


def model_of(network=None, **settings) -> MaskGuidedSR:
    network = random_model("fsrcnn", 2, k=9) if network is None else network
    return MaskGuidedSR(network, **{"device": "cpu", "runtime": "pytorch", "dtype": "float32"} | settings)


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def keys(cache) -> list[dict]:
    return [json.loads(key) for key in json.loads(cache.read_text())["entries"]]


def test_times_are_those_of_the_code_the_machine_and_the_settings(monkeypatch, cache):
    def measured(**settings) -> int:
        """Entries of the file after another process has asked."""
        choice.TIMINGS = timings.Timings()
        model_of(**{"mode": "auto", **settings}).upscale(pixels())
        return len(keys(cache))

    assert (measured(), measured()) == (1, 1)
    assert measured(memory="1GiB") == 2, "which may mean tiles"
    monkeypatch.setenv("MGA_BACKEND", "reference")
    assert measured() == 3
    monkeypatch.delenv("MGA_BACKEND")
    monkeypatch.setattr(timings, "code_version", lambda *_: "other code")
    assert measured() == 4
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    monkeypatch.setattr("mga_kernels.system.threads.processors", lambda: threads + 1)  # also where there is but one
    monkeypatch.setattr("mga_kernels.system.threads._known", (-math.inf, 1))
    try:
        assert measured() == 5
    finally:
        torch.set_num_threads(threads)
    assert measured() == 5
    assert all({"code", "torch", "processor", "threads", "memory", "network"} <= key.keys() for key in keys(cache))


def test_times_of_a_network_of_ones_own_are_those_of_its_file(monkeypatch, tmp_path):
    import sys

    model = model_of()
    assert model._runner.settings["network"] == ""
    (tmp_path / "mine.py").write_text("import torch\n\nclass Half(torch.nn.Module):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    found = []
    for text in ("1", "2"):
        (tmp_path / "mine.py").write_text(f"import torch\n\nclass Half(torch.nn.Module):\n    number = {text}\n")
        monkeypatch.setattr(model._runner, "model", torch.nn.Module())
        model._runner.model.base = model._runner.model.refine = mine.Half()
        found.append(model._runner.settings["network"])
    assert len({*found, ""}) == 3
    sys.modules.pop("mine")


def test_many_writers_and_readers_harm_nothing(cache):
    """As in several processes: each has its own memory of the file."""
    ends = threading.Event()

    def damage():
        while not ends.wait(0.002):
            cache.parent.mkdir(exist_ok=True)
            cache.write_text('{"format": 1, "entr')

    def work(number):
        for i in range(15):
            mine = timings.Timings()
            mine.get({"anything": i}, ["ms"])
            mine.put({"writer": number, "i": i}, {"ms": 1.0 + i})
            assert mine.get({"writer": number, "i": i}, ["ms"]) == {"ms": 1.0 + i}

    damaging = threading.Thread(target=damage)
    damaging.start()
    try:
        with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it cannot be read
            list(pool.map(work, range(4)))
    finally:
        ends.set()
        damaging.join()
    cache.unlink()
    timings.Timings().put({"last": 1}, {"ms": 1})
    assert timings.Timings().get({"last": 1}, ["ms"]) == {"ms": 1}


@pytest.mark.parametrize("kind", ["folder", "pipe", "denied", "nothing"])
def test_what_is_no_file_is_no_failure(cache, monkeypatch, kind):
    import os

    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no pipes with names")
        cache.parent.mkdir()
        os.mkfifo(cache)
    elif kind == "folder":
        cache.mkdir(parents=True)
    elif kind == "denied":
        monkeypatch.setattr(timings.Path, "read_text", lambda _: (_ for _ in ()).throw(PermissionError("no")))
        cache.parent.mkdir()
        cache.write_text("{}")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: model_of(max_ms=1e6).resolve_k(*SIZE))
        if kind == "nothing":
            assert asked.result(100) == 130
            return
        with pytest.warns(UserWarning, match=r"cannot be read|is not kept"):
            assert asked.result(100) == 130


def test_a_user_without_a_home_is_no_failure(monkeypatch):
    for name in ("MGA_CACHE", "XDG_CACHE_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(timings.Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    assert kept.cache_file("timings.json") is None
    with pytest.warns(UserWarning, match=r"is not kept: there is no home directory; MGA_CACHE names another folder"):
        assert model_of(max_ms=1e6).resolve_k(*SIZE) == 130


FULL = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: not enough memory: you tried 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory"),
    OutOfMemoryError("of our own"),
    MemoryError(),
]


@pytest.mark.parametrize("error", FULL, ids=["allocator", "torch", "ours", "python"])
def test_memory_that_runs_out_while_dense_is_measured(monkeypatch, error):
    """-M is run, since it takes less; in the measuring itself, not where the plan is made."""

    def full(*_):
        raise error

    expected = model_of().upscale(pixels())
    monkeypatch.setattr(ModulePlan, "dense", full)
    model = model_of(mode="auto")
    assert np.array_equal(model.upscale(pixels()), expected)
    assert model.info()["prepared"] == ["52x40, K = 9, for want of memory for dense"]


@pytest.mark.parametrize("error", FULL, ids=["allocator", "torch", "ours", "python"])
def test_memory_that_runs_out_while_k_is_measured(monkeypatch, error):
    """More cells than there is memory for are no K, where the image cannot be cut."""
    run = ModulePlan.run
    monkeypatch.setattr(Budget, "shrink", lambda *_: False)

    def full_from_50(plan, *arguments, **named):
        if plan.capacity >= 50:
            raise error
        return run(plan, *arguments, **named)

    monkeypatch.setattr(ModulePlan, "run", full_from_50)
    assert 9 <= model_of(max_ms=1e6).resolve_k(*SIZE) < 50


def test_an_image_too_large_to_be_measured_whole_is_measured_in_tiles(monkeypatch):
    plans, coarse = [], ModulePlan.coarse
    plan = Budget.plan

    def watched(budget, *arguments):
        made = plan(budget, *arguments)
        plans.append(made.parts)
        return made

    def full(plan, image, out):
        if image.shape[1] > 200:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return coarse(plan, image, out)

    monkeypatch.setattr(Budget, "plan", watched)
    monkeypatch.setattr(ModulePlan, "coarse", full)
    assert model_of(max_ms=1e6, k=None).resolve_k(64, 400) == 1600
    assert plans[0] == ""
    assert "tiles" in plans[-1]


def test_memory_that_runs_out_for_every_way_is_an_error(monkeypatch):
    def full(*_):
        raise FULL[0]

    monkeypatch.setattr(ModulePlan, "coarse", full)
    model = model_of(max_ms=1e6)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError, match="52x40 to 104x80 needs more memory than cpu has"):
            model.upscale(pixels())
    monkeypatch.undo()
    assert model.upscale(pixels()).shape == (80, 104, 3)
