"""Which plan runs a network on a GPU: what was measured, what is measured now, and when the other one runs."""

import pytest
import torch
from test_cuda_whole import whole_network
from test_regions import network_of

from mga_kernels.runtimes.cuda import choice
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnPlanner

CUDA = torch.device("cuda")


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
