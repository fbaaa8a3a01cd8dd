"""Which plan runs a network on a GPU: what was measured, what is measured now, and when the other one runs."""

from pathlib import Path

import pytest
import torch
from test_cuda_whole import whole_network
from test_regions import network_of

from mga_kernels.runtimes.cuda import choice
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnPlanner

CUDA = torch.device("cuda")
BENCH = Path(__file__).resolve().parent.parent / "bench"


class CompilationError(Exception):
    """As Triton's is: no RuntimeError."""


class Fake:
    """A planner and its plan, which takes so many seconds and makes a grey picture."""

    def __init__(self, seconds: float, grey: int = 100, finite: bool = True, error: Exception | None = None):
        self.seconds, self.grey, self.error = seconds, grey, error
        self.finite = torch.tensor(finite)
        self.runs: list[tuple] = []

    def plan(self, *size):
        self.runs.append(size)
        return self

    def start(self):
        pass

    def run(self, image):
        if self.error:
            raise self.error
        Fake.now += self.seconds
        return torch.full((8, 8, 3), self.grey, dtype=torch.uint8)


@pytest.fixture
def race():
    Fake.now = 0.0
    return lambda own, modules: choice.raced(own, modules, 7, lambda: Fake.now)


@pytest.mark.filterwarnings("error")
def test_the_faster_of_two_alike_runs(race):
    fast, slow = Fake(1.0), Fake(2.0, grey=101)
    assert race(fast, slow) is fast
    assert race(slow, fast) is fast
    assert fast.runs[0] == (*choice.SIZE, 7)


def test_another_picture_is_not_taken_however_fast(race):
    own, modules = Fake(1.0, grey=102), Fake(2.0)
    with pytest.warns(UserWarning, match="another picture .* 2.0 levels apart; the modules run instead"):
        assert race(own, modules) is modules


@pytest.mark.parametrize("kind", [RuntimeError, CompilationError])
def test_what_does_not_compile_is_not_taken(race, kind):
    modules = Fake(2.0)
    with pytest.warns(UserWarning, match=r"do not run on this GPU \(no ptxas\); the modules of the network run"):
        assert race(Fake(1.0, error=kind("no ptxas\nmore")), modules) is modules
    with pytest.raises(KeyboardInterrupt):
        race(Fake(1.0, error=KeyboardInterrupt()), modules)


@pytest.mark.filterwarnings("error")
def test_values_that_are_too_large_lead_to_the_modules_which_ask_for_a_wider_type(race):
    modules = Fake(2.0, finite=False)
    assert race(Fake(1.0, grey=0), modules) is modules
    assert race(Fake(1.0, grey=0, finite=False), modules := Fake(2.0)) is modules


@pytest.fixture
def made(monkeypatch):
    """Networks of which plans were made, by the kind of plan; nothing is."""
    found = []
    own = object.__new__(OwnPlanner)
    monkeypatch.setattr(OwnPlanner, "of", lambda *given: found.append("own") or own)
    monkeypatch.setattr(CudaGraphPlanner, "__init__", lambda self, *given: found.append("modules"))
    monkeypatch.setattr(choice, "raced", lambda own, modules, cells: found.append(f"raced {cells}") or own)
    monkeypatch.setattr(choice, "name_of", lambda device: "GPU of the table")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return found


def test_what_was_measured_before_is_not_measured_again(made, monkeypatch):
    network = whole_network("compact")
    assert isinstance(choice.fastest(network, CUDA, None), OwnPlanner)
    assert made == ["own", "modules", "raced 0"]
    for kind in ("own", "modules"):
        made.clear()
        monkeypatch.setattr(choice, "MEASURED", {"GPU of the table": {"compact x2": kind}})
        assert isinstance(choice.fastest(network, CUDA, None), OwnPlanner) == (kind == "own")
        assert made == [kind]


def test_networks_that_refine_regions_are_measured_by_themselves(made, monkeypatch):
    monkeypatch.setattr(
        choice, "MEASURED", {"GPU of the table": {"compact x4": "modules", "compact x4 in regions": "own"}}
    )
    choice.fastest(network_of("compact", patch_size=12), CUDA, None)
    assert made == ["own"]
    monkeypatch.setattr(choice, "MEASURED", {})
    choice.fastest(network_of("compact", patch_size=12), CUDA, None)
    assert made[-1] == f"raced {22 * 40 // 4}"


def test_without_convolutions_of_our_own_the_modules_run(made, monkeypatch):
    monkeypatch.setattr(OwnPlanner, "of", lambda *given: "there are none")
    assert isinstance(choice.fastest(whole_network("compact"), CUDA, None), CudaGraphPlanner)
    assert made == ["modules"]


@pytest.fixture
def gpu_choices(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_choices

    return gpu_choices


def case(network: str, own: float | None, modules: float | None, **more) -> dict:
    """What the engine stage records of a network, by milliseconds; None for one that failed, in 1.0 ms uncaptured."""
    function = "W" if network == "span" else "M"
    given = {f"{function}, graph, own convolutions": own, f"{function}, graph, eager": modules}
    rows = {name: {"median_ms": 1.0 if time is None else time} for name, time in given.items()}
    failed = {name: "not captured" for name, time in given.items() if time is None}
    return {"network": network, "contenders": rows, "failed": failed} | more


def test_the_table_is_what_was_measured(gpu_choices):
    """An uncaptured plan is none, however fast, and a later report counts more."""

    def report(day: int, **engine) -> dict:
        stamp = {"device": "GPU of a test", "date": f"2026-01-0{day}T00:00:00+00:00"}
        return {"stamp": stamp, "stages": {"engine": {f"{n.replace('_', '-')} 4K": c for n, c in engine.items()}}}

    apart = case("pan", 1.0, 2.0)
    apart["contenders"]["M, graph, own convolutions"]["earlier run"] = True
    alone = case("rcan", 1.0, 2.0)
    del alone["contenders"]["M, graph, eager"]
    later = report(2, rfdn=case("rfdn", 3.0, 2.0), span=case("span", 1.0, 2.0), pan=apart, rcan=alone)
    later["stages"]["engine"]["span 1080p"] = case("span", 2.0, 1.0)
    earlier = report(1, rfdn=case("rfdn", 1.0, 2.0), fsrcnn=case("fsrcnn", None, 5.0))
    earlier["stages"]["engine"]["compact-regions 4K"] = case("compact", 1.0, 2.0)
    assert gpu_choices.choices([later, earlier]) == {
        "GPU of a test": {
            "compact x4 in regions": "own",
            "fsrcnn x4": "modules",
            "rfdn x4": "modules",
            "span x4": "own",
        }
    }


def test_the_committed_table_is_that_of_the_committed_reports(gpu_choices):
    assert gpu_choices.choices(gpu_choices.committed()) == choice.MEASURED, "see python bench/gpu_choices.py"
