"""What only a GPU can run is rehearsed without one: the script's stages, their limits, and what a cut run leaves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_graph import FakeGraph
from fake_graph import fake_graphs as fake_graphs

from mga.training.packs import write_pack
from mga_kernels import ops
from mga_kernels.checkpoints.native import load_native
from mga_kernels.runtimes.cuda.capture import CannotCapture
from mga_kernels.runtimes.cuda.transfers import Lane

BENCH = Path(__file__).resolve().parent.parent / "bench"

CONVOLUTION = {name for name in ops.operators() if ".ops.convolution." in getattr(ops, name).__module__}


@pytest.fixture
def workloads(monkeypatch):
    """The module, at a size that takes no time."""
    monkeypatch.syspath_prepend(str(BENCH))
    import workloads

    for name, value in {"HEIGHT": 48, "WIDTH": 64, "ROWS": 12, "COLUMNS": 16, "CELLS": 192}.items():
        monkeypatch.setattr(workloads, name, value)
    monkeypatch.setattr(workloads, "COUNTS", {"some": 20, "all": 192})
    return workloads


def gpu_script(*arguments, **environment):
    command = [sys.executable, BENCH / "gpu.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture
def gpu(monkeypatch, capsys, quick_python):
    """gpu(argument..) is the script in this process: the exit status and what it printed."""
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu

    monkeypatch.setattr(gpu, "end_on_sigterm", lambda: None)

    def run(*arguments):
        code = gpu.main([str(argument) for argument in arguments])
        return code, capsys.readouterr()

    return run


def test_gpu_script_lists_its_stages(gpu):
    result = gpu_script("--dry-run")
    assert result.returncode == 0, result.stderr
    stages = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert stages == ["build", "tests", "sanitizer", "kernels", "engine"]
    quick = gpu("quick", "--dry-run", "--seconds", "300")[1].out
    first = "build", "smoke", "operators", "kernels of networks", "engine rfdn 4K", "captured networks"
    assert quick.startswith(f"quick: {', '.join(first)}, kernels C=64 bfloat16")
    assert quick.endswith("300 s together\n")
    assert re.search(r"estimated are 2\d\d s up to engine span-x4-regions 4K and \d+ s for all", quick)
    more = gpu("--dry-run", "--configs", "some.toml")[1].out.splitlines()
    assert more[-1] == "train: some.toml; at most 540 s each"
    chosen = gpu("engine", "build", "--dry-run", "--networks", "pan", "--sizes", "4K")[1].out.splitlines()
    assert chosen[1] == "engine: pan at x4, 4K: every contender; at most 540 s each"


def test_gpu_script_rehearses_on_the_cpu_and_adds_to_what_it_has(gpu, tmp_path):
    """Every line of the last two stages that a CPU can run; a stage stopped halfway keeps what it has."""
    given = "--device", "cpu", "--tiny", "--out", str(tmp_path), "--networks", "fsrcnn", "--rounds", "2"
    first = gpu_script("engine", *given, "--contenders", "M, graph, eager", "D, eager")
    assert first.returncode == 0, first.stderr
    (path,) = tmp_path.glob("gpu-cpu-*.json")
    before = json.loads(path.read_text())["stages"]["engine"]["fsrcnn tiny"]
    assert set(before["contenders"]) == {"M, graph, eager", "D, eager"}
    assert before["claim"]["M/D time"] > 0
    code, said = gpu("engine", *given, "--contenders", "M, graph, compiled", "D, torch.compile")
    assert code == 0, said.err
    after = json.loads(path.read_text())["stages"]["engine"]["fsrcnn tiny"]
    assert after["failed"] == {}
    assert len(after["contenders"]) == 4
    assert after["contenders"]["D, eager"] == before["contenders"]["D, eager"] | {"earlier run": True}
    assert "paste_patches_" in after["contenders"]["M, graph, compiled"]["backends"]
    assert after["claim"]["D compiled"]
    assert gpu("engine", *given, "--limit", "0.1")[0] == 1
    stage = json.loads(path.read_text())["stages"]["engine"]
    *made, stopped = stage["failed"]  # a quick machine may have begun to make a contender
    assert stopped == "fsrcnn tiny: stopped after 0.1 s"
    assert all(line.startswith("fsrcnn tiny, ") and line.endswith(": stopped after 0.1 s") for line in made)
    assert len(stage["fsrcnn tiny"]["contenders"]) == 4


def test_networks_without_a_mask_race_themselves(gpu, tmp_path):
    given = "--device", "cpu", "--tiny", "--out", tmp_path, "--networks", "compact", "--rounds", "1"
    code, said = gpu("engine", *given, "--contenders", "W, graph, eager", "W, eager", "M, graph, eager")
    assert code == 0, said.err
    (path,) = tmp_path.glob("gpu-cpu-*.json")
    found = json.loads(path.read_text())["stages"]["engine"]["compact tiny"]
    assert set(found["contenders"]) == {"W, graph, eager", "W, eager"}
    assert found["failed"] == {}
    assert found["gmacs"]["W"] == pytest.approx(0.46, rel=0.05)
    assert (found["claim"]["ours"], found["claim"]["stock"]) == ("W, graph, eager", "W, eager")
    assert found["claim"]["ours/stock GMACs"] == 1
    assert found["claim"]["met"] == (found["claim"]["ours/stock time"] <= 1)


def test_networks_that_refine_regions_race_the_network_alone(gpu, tmp_path):
    given = "--device", "cpu", "--tiny", "--out", tmp_path, "--networks", "compact-regions", "--rounds", "1"
    code, said = gpu("engine", *given, "--contenders", "M, graph, eager", "D, eager", "W, eager")
    assert code == 0, said.err
    (path,) = tmp_path.glob("gpu-cpu-*.json")
    found = json.loads(path.read_text())["stages"]["engine"]["compact-regions tiny"]
    assert set(found["contenders"]) == {"M, graph, eager", "D, eager"}
    assert found["failed"] == {}
    assert 0.2 < found["claim"]["M/D GMACs"] < 0.6


def test_the_shipped_model_refines_what_is_above_a_threshold(gpu, tmp_path):
    """With its weights; how many cells that is depends on the image, so they are counted, and so are the operations."""
    from gpu_cases import make_case

    given = "--device", "cpu", "--tiny", "--out", tmp_path, "--networks", "span-x4-regions", "--rounds", "1"
    code, said = gpu("engine", *given, "--contenders", "M, graph, eager", "D, eager")
    assert code == 0, said.err
    (path,) = tmp_path.glob("gpu-cpu-*.json")
    found = json.loads(path.read_text())["stages"]["engine"]["span-x4-regions tiny"]
    assert found["k"] == 1  # of 6
    assert 0.1 < found["claim"]["M/D GMACs"] < 0.9
    assert found["failed"] == {}
    assert set(found["contenders"]) == {"M, graph, eager", "D, eager"}
    case = make_case("span-x4-regions", "tiny", "cpu")
    assert torch.equal(case.network.base.state_dict()["body.body.0.weight"],
                       load_native("span-x4-regions").base.state_dict()["body.body.0.weight"])  # fmt: skip
    large = make_case("span-x4-regions", "1080p", "cpu")
    mask = large.network.select(large.image.permute(2, 0, 1)[None] / 255, large.k)[0]
    assert abs(float((mask > large.threshold).float().mean()) - 0.1) < 0.01


def test_every_network_of_the_engine_stage_is_made(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_cases
    import gpu_engine
    import gpu_stages

    assert list(gpu_cases.WHOLE) == gpu_stages.WHOLE
    assert list(gpu_cases.REGIONS) == gpu_stages.REGIONS
    kinds = (
        (gpu_engine.OURS, gpu_engine.CONTENDERS),
        (gpu_engine.OURS_WHOLE, gpu_engine.OF_WHOLE),
        (gpu_engine.OURS_REGIONS, gpu_engine.OF_REGIONS),
    )
    for ours, of in kinds:
        assert set(of) - set(gpu_engine.STOCK) == set(ours)
    assert {*gpu_engine.STOCK} < {*gpu_engine.CONTENDERS, *gpu_engine.OF_WHOLE}
    for name in gpu_stages.WHOLE:
        case = gpu_engine.make_case(name, "tiny", "cpu")
        assert case.network.config.network == name
        assert (case.k, case.threshold) == (0, None)
    for name in gpu_stages.REGIONS:
        case = gpu_engine.make_case(name, "tiny", "cpu")
        shipped = name == gpu_cases.SHIPPED
        assert (case.network.config.network, case.k) == (name.partition("-")[0], 6 if shipped else 2)
        assert (case.threshold is not None) == shipped
        assert gpu_engine.contenders_of(case.network) == gpu_engine.OF_REGIONS


def test_a_contender_that_fails_costs_only_itself(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_engine

    def broken(*_):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(gpu_engine, "own_plan", broken)
    record = tmp_path / "record.json"
    given = ["fsrcnn", "tiny", "--record", str(record), "--device", "cpu", "--rounds", "1", "--contenders"]
    assert gpu_engine.main([*given, "M, graph, eager", "D, eager"]) == 0
    found = json.loads(record.read_text())
    assert found["failed"] == {"M, graph, eager": "RuntimeError: no such kernel"}
    assert list(found["contenders"]) == ["D, eager"]
    case = gpu_engine.make_case("fsrcnn", "tiny", "cpu")
    with pytest.raises(AssertionError, match="another picture than in float32"):
        gpu_engine.checked("D, x", lambda image: image.repeat(4, 4, 1), case, gpu_engine.exact(case)[0])


def test_a_graph_that_was_not_captured_is_no_figure_of_one(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_engine

    made = gpu_engine.own_plan

    def uncaptured(*given):
        plan, how = made(*given)
        plan.wants_graph = True
        return plan, how

    monkeypatch.setattr(gpu_engine, "own_plan", uncaptured)
    record = tmp_path / "record.json"
    given = ["fsrcnn", "tiny", "--record", str(record), "--device", "cpu", "--rounds", "1", "--contenders"]
    for captured in (True, False):
        monkeypatch.setattr(gpu_engine, "may_capture", lambda captured=captured: captured)
        assert gpu_engine.main([*given, "M, graph, eager", "D, eager"]) == 0
        found = json.loads(record.read_text())
        assert list(found["failed"]) == ([] if captured else ["M, graph, eager"])
        assert (found["claim"] is not None) == captured
        assert found["contenders"]["M, graph, eager"]["runs in"].startswith("float32")


def test_of_regions_both_plans_are_compiled_before_they_are_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_engine

    made = []
    monkeypatch.setattr(gpu_engine, "own_plan", lambda case, compiled, function: made.append(function))
    for network in ("fsrcnn", "compact-regions"):
        assert gpu_engine.main([network, "tiny", "--compile-only", "--device", "cpu"]) == 0
    assert made == ["M", "M", "D"]


def test_gpu_script_trains_until_its_limit_and_goes_on(gpu, tmp_path):
    flat = np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    write_pack(tmp_path / "flat.safetensors", [("flat", flat)], 2)
    config = tmp_path / "small.toml"
    settings = ['network = "fsrcnn"', "scale = 2", "crop = 16", "batch = 2", "save_every = 1"]
    config.write_text("\n".join([*settings, f'train = ["{tmp_path}/flat.safetensors"]']))
    given = "--device", "cpu", "--tiny", "--out", tmp_path, "--configs", config, "--runs", tmp_path / "runs"
    for limit, finished in (("0.1", False), ("3000", True)):
        code, said = gpu("train", *given, "--budget", "9", "--limit", limit)
        assert code == 0, said.err
        (path,) = tmp_path.glob("gpu-cpu-*.json")
        assert json.loads(path.read_text())["stages"]["train"]["small"]["finished"] is finished
    assert (tmp_path / "runs/small/fsrcnn-x2.safetensors").exists()
    code, said = gpu("train", *given, "--budget", "3", "--set", "crop=8", "seed=1")
    assert code == 0, said.err
    assert (tmp_path / "runs/small-8-1/fsrcnn-x2.safetensors").exists()
    config.write_text("nothing")
    assert gpu("train", *given)[0] == 1


def test_gpu_script_refuses_a_machine_without_gpu(tmp_path, quick_python):
    result = gpu_script("--out", str(tmp_path / "results"), CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "torch finds no NVIDIA GPU here" in result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("cuda", "why"), [(None, "it was built without CUDA"), ("13.0", "CUDA has no driver or no")])
def test_without_a_gpu_it_is_said_what_cannot_run_and_what_can(gpu, capsys, monkeypatch, tmp_path, cuda, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    code, said = gpu("quick", "--seconds", "60", "--out", tmp_path / "results")
    assert code == 2
    assert said.out == ""
    assert why in said.err
    for step in ("build", "operators", "captured networks", "kernels of networks", "memcheck", "triton"):
        assert step in said.err
    assert "smoke" not in said.err
    assert said.err.endswith(
        "; --dry-run lists what would run, and quick --device cpu --tiny rehearses what needs none\n"
    )
    assert len(said.err.splitlines()) == 1
    assert "rehearses" not in gpu("build", "tests", "--out", tmp_path / "results")[1].err
    assert not (tmp_path / "results").exists()


@pytest.fixture
def gpu_kernels(workloads):
    import gpu_kernels

    return gpu_kernels


def test_kernels_stage_runs_on_the_cpu(gpu_kernels, workloads, monkeypatch):
    """The stage that a GPU will run, with the host's clock, a compiler that costs no time, and rates made up."""
    monkeypatch.delenv("MGA_BACKEND", raising=False)
    monkeypatch.setattr(workloads, "COUNTS", {"some": 20})
    monkeypatch.setattr(workloads, "measure", lambda *_: workloads.Machine(1e10, 1e11))
    monkeypatch.setattr(workloads, "HEIGHT", 544)  # which measure_tiny has to change
    saved = []
    result = gpu_kernels.measure_tiny(saved.append)
    assert workloads.HEIGHT == 544
    assert len(saved) == sum(isinstance(row, dict) for row in result["C=8 bfloat16"].values())
    assert list(result) == ["C=8 bfloat16"]
    for table in result.values():
        rows = {name: row for name, row in table.items() if isinstance(row, dict)}
        assert {name.split()[0] for name in rows} >= set(ops.operators()) - CONVOLUTION - {"dynamic_filter"}
        for name, row in rows.items():
            expected = {"reference", "torch.compile"}
            if "cpu" in ops.operators()[name.split()[0]].backends:
                expected.add("cpu")
            timed = {variant for variant in row if variant not in ("floor_ms", "left out")}
            assert timed == expected, (name, row.get("left out"))
            assert all(row[variant]["times_floor"] > 0 for variant in timed)


def test_what_decides_comes_first_and_nothing_is_compiled_unasked(gpu_kernels, workloads, monkeypatch, tmp_path):
    """Minutes of torch.compile stood before the rows of C = 64 in bfloat16, on which every target depends."""
    raced = []

    def race(workload, device, machine, rounds, clock, compiler):
        allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        raced.append((workload.op, compiler, allowed))
        return {"floor_ms": 1.0}

    monkeypatch.setattr(gpu_kernels, "race", race)
    monkeypatch.setattr(workloads, "measure", lambda *_: workloads.Machine(1e10, 1e11))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = gpu_kernels.measure_all("cpu", 1, gpu_kernels.host_times, only=["gather"])
    assert list(found) == ["C=64 bfloat16", "C=50 float16", "C=50 float32"]
    # A row of float32 in TF32 would be below its floor, which is that of IEEE products.
    assert set(raced) == {("gather_patches", None, (False, False))}
    assert "torch.compile" not in gpu_kernels.variants(workloads.gather_patches("some", "cpu"), "cpu", None)[0]


def test_kernels_of_ours_are_timed_as_a_graph(gpu_kernels, workloads, monkeypatch):
    """Else the host's way to a short kernel would be its time; what cannot be captured is left out with the reason."""

    def captured(call):
        if call == "triton":
            raise RuntimeError("operation not permitted when stream is capturing")
        return f"graph of {call}"

    monkeypatch.setattr(gpu_kernels, "captured", captured)
    monkeypatch.setattr(gpu_kernels, "forced", lambda workload, name: name)
    for name in ("cuda", "triton"):
        monkeypatch.setattr(ops.operators()["gather_patches"].backends[name], "unavailable", lambda: None)
    calls, left_out = gpu_kernels.variants(workloads.gather_patches("some", "cpu"), "cuda", None)
    assert calls == {"cuda": "graph of cuda", "reference": "reference"}
    assert left_out == {"triton": "RuntimeError: operation not permitted when stream is capturing"}


def test_after_a_capture_that_failed_kernels_are_launched_one_by_one(gpu_kernels, workloads, monkeypatch, fake_graphs):
    """PyTorch 2.11 may not bear another capture in the process, so that every row behind it would be lost."""
    monkeypatch.setattr(gpu_kernels, "Lane", lambda device: Lane(torch.device("cpu")))
    good, bad = lambda: torch.ones(2).add_(1), lambda: torch.ones(2).sum().item()
    assert gpu_kernels.captured(good) is not good
    with pytest.raises(CannotCapture, match="waits for a value"):
        gpu_kernels.captured(bad)
    assert FakeGraph.captures == 2
    assert gpu_kernels.captured(good) is good
    assert FakeGraph.captures == 2
    row = gpu_kernels.race(
        workloads.gather_patches("some", "cpu"), "cpu", workloads.Machine(1e10, 1e11), 1, gpu_kernels.host_times, None
    )
    assert row["launched one by one"] == "a capture failed in this process"
    assert row["cpu"]["median_ms"] > 0


def test_a_backend_that_is_wrong_is_named_and_not_timed(gpu_kernels, workloads, monkeypatch):
    backend = ops.operators()["gather_patches"].backends["cpu"]
    right = backend.run
    monkeypatch.setattr(backend, "run", lambda *given: right(*given) + 1)
    calls, left_out = gpu_kernels.variants(workloads.gather_patches("some", "cpu"), "cpu", "eager")
    assert set(calls) == {"reference", "torch.compile"}
    assert list(left_out) == ["cpu"]
    assert "not that of the reference" in left_out["cpu"]


def test_a_slow_definition_has_fewer_rounds(gpu_kernels):
    assert gpu_kernels.rounds_within(2.0, 1e-4, 100) == 100
    assert gpu_kernels.rounds_within(2.0, 0.1, 100) == 20
    assert gpu_kernels.rounds_within(2.0, 30.0, 100) == gpu_kernels.FEWEST
    assert gpu_kernels.rounds_within(2.0, 30.0, 3) == 3


def test_targets(gpu_kernels):
    def row(floor, **medians):
        return {"floor_ms": floor, **{name: {"median_ms": median} for name, median in medians.items()}}

    table = {
        "mask_head softmax-then-pool": row(1.0, triton=1.3, reference=9.0),
        "filter_and_select K=1000": row(0.001, cuda=0.012),
        "select_patches K=1000": row(0.001, cuda=0.016, reference=0.001),
        "gather_patches all": row(0.9, cuda=1.2, triton=1.0),
        "gather_patches K=1000": row(0.001, cuda=0.005),
        "paste_patches_ all": row(0.5, cuda=1.0),
        "paste_patches_ K=1000": row(0.001, reference=0.005),
    }
    met = {target["claim"].split(",")[0]: target["met"] for target in gpu_kernels.targets(table)}
    assert met == {
        "mask branch over its floor": True,
        "selection of 1000": False,
        "filter and selection of 1000": True,
        "gather_patches of all": True,
        "gather_patches of 1000": True,
        "paste_patches_ of all": False,
        "paste_patches_ of 1000": False,
    }
