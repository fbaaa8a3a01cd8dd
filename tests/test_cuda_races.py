"""No two threads of a CUDA kernel meet in memory without a barrier between them; and that this would be found.

A few cases of every kernel. MGA_ALL_RACES=1 lets all tests of the emulation run so, in minutes.
"""

import os
from pathlib import Path

import cuda_races
import pytest
import test_cuda_emulation
import torch
from cuda_emulated import CSRC
from cuda_planted import RACES, acting, filter_and_select, planted_library, select

ROOT = Path(__file__).resolve().parent.parent


def generator():
    return torch.Generator().manual_seed(5)


def gather(library):
    test_cuda_emulation.test_gather_patches(library, torch.float16, "channels-last", 8, 3, generator())


def paste(library):
    formats = torch.contiguous_format, torch.channels_last
    test_cuda_emulation.test_paste_patches(library, torch.uint8, *formats, 3, generator())


CASES = {"filter_and_select": filter_and_select, "select_patches": select}
CASES |= {"gather_patches": gather, "paste_patches": paste}


def test_every_kernel_has_a_case():
    assert {path.stem for path in CSRC.rglob("*.cu")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_no_race(name):
    assert cuda_races.races(CASES[name], cuda_races.watched_library()) == []


@pytest.fixture(scope="module")
def planted():
    return planted_library(RACES, cuda_races.objects(), *cuda_races.WATCH)


@pytest.mark.parametrize("name", RACES)
def test_a_missing_barrier_is_a_race(name, planted):
    """Whatever the order in which threads ran, and whether or not the result was right."""

    def attempt(library):
        try:
            RACES[name].check(library)
        except AssertionError:  # it may also be wrong
            pass

    with acting(RACES, name):
        assert cuda_races.races(attempt, cuda_races.load(planted))


def test_without_a_fault_there_is_no_race(planted):
    library = cuda_races.load(planted)
    for check in {fault.check for fault in RACES.values()}:
        assert cuda_races.races(check, library) == []


def watched_tests(forks, *files, plugins=("cuda_races",), folder=ROOT / "tests"):
    """Tests of the emulation in a process in which each of them is watched."""
    words = [word for name in plugins for word in ("-p", name)]
    return forks.pytest(*words, *files, folder=ROOT, PYTHONPATH=str(folder))


def test_a_race_fails_the_test_that_meets_it(planted, tmp_path, forks):
    """Though its result is right, or wrong: the plugin that lets every test be watched."""
    load = f"library = cuda_races.load({str(planted)!r})"
    (tmp_path / "faulty.py").write_text(f"import cuda_races\n{load}\ncuda_races.watched_library = lambda: library\n")
    file = tmp_path / "test_selection.py"
    file.write_text(
        "import cuda_planted\n"
        "from cuda_emulated import emulation as emulation\n\n\n"
        "def test_selection(emulation):\n"
        "    cuda_planted.select(emulation)\n"
    )
    with acting(RACES, "a digit sought before all are counted"):
        result = watched_tests(forks, file, plugins=("cuda_races", "faulty"), folder=tmp_path)
    assert "read after write, shared memory" in result.stdout
    assert result.returncode == 1
    assert watched_tests(forks, file, plugins=("cuda_races", "faulty"), folder=tmp_path).returncode == 0


@pytest.mark.skipif(not os.environ.get("MGA_ALL_RACES"), reason="takes minutes; MGA_ALL_RACES=1 asks for it")
def test_no_race_in_any_test_of_the_emulation(forks):
    result = watched_tests(forks, *(f"tests/test_cuda_{name}.py" for name in ("emulation", "filter_and_select")))
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout
