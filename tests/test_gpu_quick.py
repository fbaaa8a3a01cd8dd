"""bench/gpu.py where time is short: what answers most comes first, and what has ended is not run again."""

import json
import re
import subprocess
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def gpu_process(bench):
    import gpu_process

    return gpu_process


@pytest.fixture
def gpu_stages(bench):
    import gpu_stages

    return gpu_stages


@pytest.fixture
def gpu_quick(bench):
    import gpu_quick

    return gpu_quick


def test_the_report_of_every_kernel_is_found_where_the_build_leaves_it(gpu_stages, tmp_path):
    """Objects lie in folders as their sources do (``NinjaFile.compile`` in setup.py)."""
    sources = sorted((BENCH.parent / "csrc").rglob("*.cu"))
    for source in sources:
        log = tmp_path / "build/temp.linux/cuda-release/_C" / source.relative_to(BENCH.parent / "csrc")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.with_name(f"{log.name}.o.log").write_text("Used 40 registers\n8 bytes spill stores\nUsed 32 registers\n")
    found = gpu_stages.compiled_kernels(tmp_path)
    assert set(found) == {source.name for source in sources}
    assert found["gather_patches.cu"] == {"registers": [32, 40], "spilled bytes": 8}


def test_every_file_with_tests_for_a_gpu_is_run_on_one(gpu_stages):
    """That marks its tests, or has the fixture of backends or that of graphs, whose parameters are marked."""
    marks = re.compile(r"pytest\.mark\.cuda|\bdef test_\w+\((?:[^)]*[ (])?(?:backend|graphs)[,)]")
    tests = {path for path in Path(__file__).parent.glob("test_*.py") if marks.search(path.read_text())}
    with_them = {f"tests/{path.name}" for path in tests - {Path(__file__)}}
    assert {"tests/test_cuda_whole.py", "tests/test_gather_patches.py", "tests/test_backends.py"} <= with_them
    left_out = {"tests/test_cuda_capture.py"}  # with graphs that are recorded, not captured
    assert with_them - left_out <= set(gpu_stages.TESTS)


class Call:
    """One call of the quick stage with steps of a test's own, over records of the calls before."""

    def __init__(self, quick, steps, before, seconds=100.0, **settings):
        self.saved = []
        given = {"device": "cuda", "tiny": False, "again": [], "before": before} | settings

        def save(stage, found):
            before[stage] = found
            self.saved.append(json.loads(json.dumps(before)))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quick, "STEPS", steps)
            self.good = quick.run_steps(Namespace(**given, save=save), quick.Clock(seconds))


def test_what_has_ended_is_recorded_at_once_and_not_run_again(gpu_quick):
    ran, before = [], {}

    def step(name, found):
        def run(options, seconds):
            ran.append(name)
            if isinstance(found, Exception):
                raise found
            return dict(found)

        return gpu_quick.Step(1, 10, run)

    steps = {
        "one": step("one", {"told": 1}),
        "wrong": step("wrong", {"failed": ["a test"]}),
        "cut": step("cut", gpu_quick.StageFailed("`pytest` stopped after 3 s: ..")),
        "broken": step("broken", RuntimeError("no such file")),
    }
    first = Call(gpu_quick, steps, before)
    assert ran == list(steps)
    assert [len(record["quick"]) for record in first.saved] == [1, 2, 3, 4]  # who is killed leaves what had ended
    assert not first.good
    quick = before["quick"]
    assert {name: found["ended"] for name, found in quick.items()} == {**dict.fromkeys(steps, True), "cut": False}
    assert quick["broken"]["failed"] == ["RuntimeError: no such file"]
    ran.clear()
    steps["cut"] = step("cut", {})
    Call(gpu_quick, steps, before)
    assert ran == ["cut"]
    ran.clear()
    steps["wrong"], steps["broken"] = step("wrong", {}), step("broken", {})
    assert Call(gpu_quick, steps, before, again=["wrong", "broken"]).good
    assert ran == ["wrong", "broken"]


def test_what_was_stopped_waits_for_what_has_not_been_begun(gpu_quick):
    """It would begin anew, and take the time of what has no answer yet, call after call."""
    ran = []

    def step(name, wait=0.0):
        def run(options, seconds):
            ran.append(name)
            time.sleep(wait)
            return {"stopped": ["pytest stopped after 60 s"]} if wait else {}

        return gpu_quick.Step(1, 60, run, stays=lambda: name != "build")

    steps = {"build": step("build"), "long": step("long", 1.5), "never begun": step("never begun")}
    before = {}
    Call(gpu_quick, steps, before, seconds=gpu_quick.CLOSING + 2)
    assert ran == ["build", "long"]
    assert before["quick"]["never begun"]["stopped"][0].startswith("no time was left")
    Call(gpu_quick, steps, before, seconds=gpu_quick.CLOSING)  # without time for any, after which it is as before
    ran.clear()
    steps["long"] = step("long")
    assert Call(gpu_quick, steps, before).good
    assert ran == ["build", "never begun", "long"]


def test_a_system_without_the_sanitizer_costs_that_step_alone(gpu_stages, monkeypatch):
    def run(command, limit, **extra):
        failure = gpu_stages.StageFailed("`compute-sanitizer` ended with status 1: 2 failed")
        failure.output = told
        raise failure

    monkeypatch.setattr(gpu_stages, "run", run)
    monkeypatch.setattr(gpu_stages.shutil, "which", lambda name: name)
    options = Namespace(before={}, tools=["memcheck"], tests=[], limit=9.0, save=lambda *_: None)
    told = "========= Error: Device not supported. Please refer to the documentation\n2 failed"
    found = gpu_stages.sanitizer(options)
    assert found["not run"].endswith("Device not supported")
    options.before["sanitizer"] = found
    told = "========= ERROR SUMMARY: 1 error"
    with pytest.raises(gpu_stages.StageFailed, match="2 failed"):
        gpu_stages.sanitizer(options)
    monkeypatch.setattr(gpu_stages, "run", lambda *_, **__: "3 passed in 1 s\n")
    assert "not run" not in gpu_stages.sanitizer(options)


def test_a_plan_that_was_not_captured_stays_one_that_failed(gpu_stages):
    """Its time is there, too, and what is measured later does not make it a graph's."""
    before = {"contenders": {"M, own": {"median_ms": 1.0}, "D": {"median_ms": 9.0}}, "failed": {"M, own": "uncaptured"}}
    found = gpu_stages.merged(before, {"contenders": {"D": {"median_ms": 8.0}}})
    assert found["failed"] == {"M, own": "uncaptured"}
    assert found["contenders"]["M, own"] == {"median_ms": 1.0, "earlier run": True}
    again = gpu_stages.merged(before, {"contenders": {"M, own": {"median_ms": 2.0}}})
    assert again["failed"] == {}


def test_another_machine_builds_again_and_measures_nothing_again(gpu_quick):
    ran, there = [], []
    steps = {
        "build": gpu_quick.Step(1, 2, lambda *_: ran.append("build") or {}, stays=lambda: bool(there)),
        "kernels": gpu_quick.Step(1, 2, lambda *_: ran.append("kernels") or {}),
    }
    before = {}
    Call(gpu_quick, steps, before)
    Call(gpu_quick, steps, before)
    there.append("a library")
    Call(gpu_quick, steps, before)
    assert ran == ["build", "kernels", "build"]
    assert gpu_quick.STEPS["build"].stays is gpu_quick.built


def test_earlier_results_in_the_repository_are_gone_on_from(bench, monkeypatch, tmp_path):
    """A machine that is lent anew has an empty folder for results, and a copy of the repository."""
    import gpu

    monkeypatch.setenv("MGA_COMMIT", "0123456789abcdef")
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu, "end_on_sigterm", lambda: None)
    (tmp_path / "results").mkdir()
    record = {"stages": {"quick": {name: {"ended": True} for name in gpu.gpu_quick.STEPS}}}
    (tmp_path / "results/gpu-cpu-0123456789.json").write_text(json.dumps(record))
    seen = []
    monkeypatch.setattr(gpu.gpu_quick, "run_steps", lambda options, clock: seen.append(options.before) or True)
    assert gpu.main(["quick", "--device", "cpu", "--tiny", "--out", str(tmp_path / "out")]) == 0
    assert seen == [record["stages"]]


def test_a_step_gets_what_is_left_and_is_not_begun_in_less_than_it_needs(gpu_quick):
    got = []

    def step(least, most):
        return gpu_quick.Step(least, most, lambda options, seconds: got.append(seconds) or {})

    before = {}
    steps = {"long": step(5, 1000), "much": step(60, 70), "short": step(1, 4)}
    assert not Call(gpu_quick, steps, before, seconds=20).good
    assert got == [pytest.approx(20 - gpu_quick.CLOSING, abs=0.5), 4]
    assert before["quick"]["much"]["stopped"] == ["no time was left: 17 s of 60"]
    assert [found["ended"] for found in before["quick"].values()] == [True, False, True]


def test_without_a_gpu_steps_that_need_one_are_left_out(gpu_quick):
    steps = {name: gpu_quick.Step(1, 2, lambda *_: {}, needs_gpu=name == "a") for name in "ab"}
    before = {}
    Call(gpu_quick, steps, before, device="cpu")
    assert list(before["quick"]) == ["b"]


def test_the_first_answers_come_within_five_minutes(gpu_quick):
    """What the steps may take, up to the first figures of kernels and of a network."""
    names = list(gpu_quick.STEPS)
    assert names[:5] == ["build", "smoke", "operators", "kernels of networks", "engine rfdn 4K"]
    assert sum(step.least for step in gpu_quick.STEPS.values()) < 900
    first = names[: names.index("engine rfdn 4K") + 1]
    assert sum(gpu_quick.STEPS[name].least for name in first) < 300
    assert all(step.usual > 0 for step in gpu_quick.STEPS.values())
    before = names[: names.index(gpu_quick.FIRST)]
    assert {f"engine {network} 4K" for network in ("rfdn", "span")} <= set(before)
    assert gpu_quick.estimate(gpu_quick.FIRST) < 300


def test_kernels_of_networks_are_compiled_by_processes_at_the_same_time(gpu_quick, gpu_stages, monkeypatch):
    """One waits for the other, so one after the other would never end; what fails is named."""
    meeting, ran = threading.Barrier(len(gpu_quick.IN_TURN)), []

    def run(command, limit):
        assert limit == 9.0
        ran.append(command[2:5])
        meeting.wait(20)
        if "pan" in command:
            raise gpu_stages.StageFailed("`gpu_engine.py` ended with status 1: no ptxas")

    monkeypatch.setattr(gpu_stages, "run", run)
    found = gpu_quick.STEPS["kernels of networks"].run(Namespace(device="cuda"), 9.0)
    assert found == {"failed": ["pan: `gpu_engine.py` ended with status 1: no ptxas"]}
    assert sorted(ran) == sorted([network, "4K", "--compile-only"] for network in gpu_quick.IN_TURN)


def test_a_stage_that_had_no_time_is_no_step_that_ended(gpu_quick, monkeypatch):
    saved = {}

    def stage(options):
        assert options.limit == 30
        assert options.tools == ["memcheck"]
        return {"row": 1, "failed": ["C=64, gather: no time was left", "gather on cuda: wrong"]}

    monkeypatch.setitem(gpu_quick.STAGES, "sanitizer", stage)
    options = Namespace(tiny=False, tools=["all"], save=saved.__setitem__)
    found = gpu_quick.part("sanitizer", 20, tools=["memcheck"])(options, 50)
    assert found["stopped"] == ["C=64, gather: no time was left"]
    assert len(found["failed"]) == 2
    assert saved["sanitizer"]["row"] == 1


class OutOfTime(subprocess.Popen):
    """Whose time is up as soon as a test has been recorded: how long that takes is the machine's affair."""

    record: Path

    def wait(self, timeout=None):
        if timeout is None:
            return super().wait()
        until = time.monotonic() + 300
        while self.poll() is None and time.monotonic() < until:
            if self.record.exists() and self.record.read_text().endswith("\n"):
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.02)
        return super().wait(0)


def test_tests_are_counted_and_those_that_fail_named(gpu_quick, gpu_process, tmp_path, monkeypatch):
    """By several processes, and when the time ends before the tests do."""
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest, time\n"
        "def test_good(): pass\n"
        "def test_bad():\n    assert 1 == 2, 'one is not two'\n"
        "@pytest.mark.skip(reason='needs an NVIDIA GPU')\n"
        "def test_skipped(): pass\n"
        "@pytest.mark.skip(reason='needs two NVIDIA GPUs')\n"
        "def test_second(): pass\n"
        "def test_long():\n    time.sleep(60)\n"
    )
    run = gpu_quick.pytest([str(file)], "not long")
    found = run(Namespace(out=tmp_path), 300)
    assert (found["passed"], found["skipped"]) == (1, 1)
    wrong = {name.rpartition("::")[2]: told for name, told in found["wrong"].items()}
    assert wrong["test_bad"] == "AssertionError: one is not two"
    assert "needs an NVIDIA GPU" in wrong["test_skipped"]
    assert "stopped" not in found
    monkeypatch.setattr(OutOfTime, "record", tmp_path / "tests.part.jsonl", raising=False)
    monkeypatch.setattr(gpu_process.subprocess, "Popen", OutOfTime)
    cut = gpu_quick.pytest([str(file)], "good or long")(Namespace(out=tmp_path), 8)
    assert cut["passed"] == 1
    assert "stopped after 8 s" in cut["stopped"][0]


@pytest.mark.parametrize("stage", ["kernels", "engine"])
def test_what_a_call_that_was_killed_had_measured_counts(gpu_stages, stage, tmp_path, monkeypatch):
    """Its child writes each row to a file of its own, which the next call takes over."""

    def child(command, limit, **extra):
        record = Path(command[command.index("--record") + 1])
        seen.append(json.loads(record.read_text()) if record.exists() else {})
        raise gpu_stages.StageFailed(f"`{command[0]}` ended with status -9: killed")

    seen, saved = [], {}
    monkeypatch.setattr(gpu_stages, "run", child)
    options = {"out": tmp_path, "before": {}, "device": "cuda", "rounds": 5, "limit": 9.0, "compile": False}
    options |= {"operators": [], "configurations": [], "networks": ["pan"], "sizes": ["4K"], "contenders": []}
    row = {"floor_ms": 1.0, "cuda": {"median_ms": 2.0}}
    if stage == "kernels":
        (tmp_path / "kernels.part.json").write_text(json.dumps({"C=64 bfloat16": {"gather": row}}))
        found = gpu_stages.kernels(Namespace(**options, save=saved.__setitem__))
        assert found["C=64 bfloat16"]["gather"] == row
        assert seen == [{"C=64 bfloat16": {"gather": row}}]
    else:
        (tmp_path / "pan-4K.part.json").write_text(json.dumps({"contenders": {"D, eager": row}, "making": "M"}))
        found = gpu_stages.engine(Namespace(**options, save=saved.__setitem__))
        assert found["pan 4K"]["contenders"]["D, eager"] == row | {"earlier run": True}
    assert "killed" in found["failed"][-1]
    assert not list(tmp_path.iterdir())
