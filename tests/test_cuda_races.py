"""No two threads of a CUDA kernel meet in memory without a barrier between them; and that this would be found.

A few cases of every kernel. MGA_ALL_RACES=1 lets all tests of the emulation run so, in minutes.
"""

import ctypes
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cuda_races
import pytest
import test_cuda_emulation
import torch
from cuda_emulated import CSRC, compile_one, launch, link, one_process_at_a_time, reference
from test_cuda_faults import FAULTS, chain, selection, shuffle, without

ROOT = Path(__file__).resolve().parent.parent


def generator():
    return torch.Generator().manual_seed(5)


def select(library):
    """With room around the indices, because a rank that was counted wrong leads outside."""
    cells, k = 33 * 64, 700
    mask = torch.randn(1, 33, 64, generator=generator()).half()
    indices = torch.full((4 * cells,), -7, dtype=torch.int32)[2 * cells : 2 * cells + k]
    launch(library, "select_patches", mask, 0, indices, *map(ctypes.c_int64, (1, cells, k)), 0, 3)
    assert torch.equal(indices[None], reference("select_patches", mask, k, "largest", 3))


def gather(library):
    test_cuda_emulation.test_gather_patches(library, torch.float16, "channels-last", 8, 3, generator())


def paste(library):
    formats = torch.contiguous_format, torch.channels_last
    test_cuda_emulation.test_paste_patches(library, torch.uint8, *formats, 3, generator())


CASES = {"conv_chain": chain, "filter_and_select": selection, "paste_shuffled": shuffle}
CASES |= {"select_patches": select, "gather_patches": gather, "paste_patches": paste}


def test_every_kernel_has_a_case():
    names = {path.stem.removesuffix("_f16").removesuffix("_bf16") for path in CSRC.rglob("*.cu")}
    assert names == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_no_race(name):
    assert cuda_races.races(CASES[name], cuda_races.watched_library()) == []


PLANTED = {
    **{name: fault for name, fault in FAULTS.items() if fault[2] in (chain, shuffle)},
    "a digit sought before all are counted": (
        "select_patches.cu",
        "      });\n      __syncthreads();\n    }\n    find_digit",
        select,
    ),
}


def faulty_library(source, line, folder):
    """Kept beside the library without the fault, which depends on the same sources."""
    objects = cuda_races.objects()
    library = objects[0].with_name(f"without-{hashlib.sha256(line.encode()).hexdigest()[:12]}-{source}.so")
    with one_process_at_a_time():
        if not library.exists():
            without(line, folder / "csrc")
            (path,) = (folder / "csrc").rglob(source)
            faulty = compile_one(path, folder, folder / "csrc", *cuda_races.WATCH)
            parts = [faulty if whole.name == faulty.name else whole for whole in objects]
            os.replace(link(parts, library.with_suffix(".part")), library)
    return cuda_races.load(library)


@pytest.mark.parametrize("name", PLANTED)
def test_a_missing_barrier_is_a_race(name, tmp_path):
    """Whatever the order in which threads ran, and whether or not the result was right."""
    source, line, check = PLANTED[name]
    library = faulty_library(source, line, tmp_path)

    def attempt(library):
        try:
            check(library)
        except AssertionError:  # it may also be wrong
            pass

    assert cuda_races.races(attempt, library)


def watched_tests(*files, plugins=("cuda_races",), only="", folder=ROOT / "tests"):
    """Tests of the emulation in a process in which each of them is watched."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", only]
    command += [word for name in plugins for word in ("-p", name)] + [f"tests/test_cuda_{name}.py" for name in files]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests"), *sys.path])}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_race_fails_the_test_that_meets_it(tmp_path):
    """Though its result is right, or wrong: the plugin that lets every test be watched."""
    source, line, _ = PLANTED["cells written before the patch is staged"]
    path = faulty_library(source, line, tmp_path)._name
    (tmp_path / "faulty.py").write_text(
        f"import cuda_races\nlibrary = cuda_races.load({path!r})\ncuda_races.watched_library = lambda: library\n"
    )
    only = "types_and_layouts and patch_type0 and image_type0"
    result = watched_tests("paste_shuffled", plugins=("cuda_races", "faulty"), only=only, folder=tmp_path)
    assert "read after write, shared memory" in result.stdout
    assert result.returncode == 1


@pytest.mark.skipif(not os.environ.get("MGA_ALL_RACES"), reason="takes minutes; MGA_ALL_RACES=1 asks for it")
def test_no_race_in_any_test_of_the_emulation():
    result = watched_tests("conv_chain", "emulation", "filter_and_select", "paste_shuffled")
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout
