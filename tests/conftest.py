"""What the tests share: the backends as a fixture, and the optional folder of external data."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a worker, so threads of its own would only wait for one another
    os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"

import torch
from cuda_emulated import emulation, thread_order  # noqa: F401
from forks import Forks
from upscaling import few_frames_a_part, full_disk, mga_upscale, mga_video, model_file, picture_folder  # noqa: F401

from mga_kernels import _native

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a script that starts the tests with & leaves it so
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take long, or whose first test does. Worker processes begin with them, so that none is alone at the end.
LONG = [
    f"test_{name}.py"
    for name in (
        *(
            "cuda_faults",
            "triton_kernels",
            "bench",
            "bench_gpu",
            "export",
            "ablate",
            "three_step",
            "model_matrix",
            "processes",
        ),
        *(
            "published",
            "tiles",
            "plans",
            "convert",
            "documented_commands",
            "local_networks",
            "cuda_races",
            "engine",
            "complexity",
        ),
    )
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is found out in tests is not kept in the user's cache folder, nor taken from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def able_to_capture(request: pytest.FixtureRequest) -> None:
    """Tests on a GPU fail at once, and say why, in a process in which a capture has failed: it makes no other."""
    module = sys.modules.get("mga_kernels.runtimes.cuda.capture")
    if module is not None and request.node.get_closest_marker("cuda") and not module.may_capture():
        pytest.fail(f"an earlier capture failed: {module._failed[0]}")


@dataclass(frozen=True)
class ForcedBackend:
    """A backend that MGA_BACKEND forces during the test, and the device whose tensors it takes."""

    name: str
    device: str


@pytest.fixture(params=["reference", "cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ForcedBackend:
    name = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    if name != "reference" and _native.LIBRARY_ERROR:
        pytest.fail(_native.LIBRARY_ERROR)
    if name == "cuda" and not _native.has_kernel("gather_patches", "cuda"):
        pytest.skip("the library was built without CUDA kernels")
    monkeypatch.setenv("MGA_BACKEND", name)
    return ForcedBackend(name, "cuda" if name == "cuda" else "cpu")


@pytest.fixture
def free_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backend is forced, whatever the environment of the test run says."""
    monkeypatch.delenv("MGA_BACKEND", raising=False)


@pytest.fixture
def few_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training ends with a look at 125 flat colours, which takes longer than the few iterations of most tests."""
    from mga.training import flat

    monkeypatch.setattr(flat, "flat_colours", lambda: [(0, 128, 255)])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with external data sets and weights; the tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MGA_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no external data: set MGA_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes of their own that need not import PyTorch, with two threads of it."""
    made = Forks(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="PASSIVE")
    yield made
    made.close()


@pytest.fixture
def quick_python(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python that the tested code starts, by the name of this one, has imported the package when it starts."""
    monkeypatch.setattr(sys, "executable", forks.python)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20220)
