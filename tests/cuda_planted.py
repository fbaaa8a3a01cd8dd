"""Faults in the CUDA kernels, a barrier or wait left out of each, and a check that a kernel without faults passes.

All are planted into one library of the emulation: which one acts there, EMU_WITHOUT says.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import test_cuda_filter_and_select
import torch
from cuda_emulated import CSRC, compile_headers, compile_one, launch, link, one_process_at_a_time, reference


def filter_and_select(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(2)
    probability = torch.rand(1, 30, 41, generator=generator)
    weight, bias = test_cuda_filter_and_select.filters(3, 1, generator)
    test_cuda_filter_and_select.check(library, probability, probability[:, None], weight, bias, 300)


def select(library: ctypes.CDLL) -> None:
    """With room around the indices, because a rank that was counted wrong leads outside."""
    cells, k = 33 * 64, 700
    mask = torch.randn(1, 33, 64, generator=torch.Generator().manual_seed(5)).half()
    indices = torch.full((4 * cells,), -7, dtype=torch.int32)[2 * cells : 2 * cells + k]
    launch(library, "select_patches", mask, 0, indices, *map(ctypes.c_int64, (1, cells, k)), 0, 3)
    assert torch.equal(indices[None], reference("select_patches", mask, k, "largest", 3))


@dataclass(frozen=True)
class Fault:
    """The last statement of ``lines`` left out, which stand once in all sources; ``check`` runs a kernel of it."""

    source: str  # the file that is compiled
    lines: str
    check: Callable[[ctypes.CDLL], None]
    statement: str = "__syncthreads();"


A_DIGIT = "      });\n      __syncthreads();\n    }\n    find_digit"
FAULTS = {
    "digits counted before the histogram is empty": Fault(
        "filter_and_select.cu",
        "  for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) scratch.histogram[d] = 0;\n  __syncthreads();\n",
        filter_and_select,
    ),
    "a digit sought before all are counted": Fault("filter_and_select.cu", A_DIGIT, filter_and_select),
}
# Of filter_and_select the detector of races does not look at the global memory; the selection is seen alone.
RACES = {name: fault for name, fault in FAULTS.items() if fault.check != filter_and_select}
RACES["a digit sought before all are counted"] = Fault("select_patches.cu", A_DIGIT, select)


def plant(csrc: Path, lines: Iterable[tuple[str, str]]) -> None:
    """Makes the last ``statement`` of each of ``lines`` one that EMU_WITHOUT = 1, 2 .. leaves out."""
    texts = {path: path.read_text() for path in (*csrc.rglob("*.cu"), *csrc.rglob("*.cuh"))}
    for number, (found, statement) in enumerate(lines, 1):
        assert sum(text.count(found) for text in texts.values()) == 1, "the sources have changed: name the lines anew"
        before, _, after = found.rpartition(statement)
        planted = f"{before}if (!emu::without({number})) {statement}{after}"
        texts = {path: text.replace(found, planted) for path, text in texts.items()}
    for path, text in texts.items():
        path.write_text(text)


def planted_library(faults: dict[str, Fault], objects: tuple[Path, ...], *flags: str) -> Path:
    """A library with all these faults; kept beside the one without faults, which depends on the same sources."""
    lines = [(fault.lines, fault.statement) for fault in faults.values()]
    library = objects[0].with_name(f"planted-{hashlib.sha256(repr(lines).encode()).hexdigest()[:12]}.so")
    with one_process_at_a_time():
        if not library.exists():
            with tempfile.TemporaryDirectory() as folder:
                csrc = Path(folder) / "csrc"
                shutil.copytree(CSRC, csrc)
                plant(csrc, lines)
                compile_headers(Path(folder), csrc, *flags)
                sources = {path for path in csrc.rglob("*.cu") if path.name in {f.source for f in faults.values()}}
                anew = {path.name: path for path in (compile_one(s, Path(folder), csrc, *flags) for s in sources)}
                link([anew.get(whole.name, whole) for whole in objects], Path(folder) / "planted.so")
                shutil.copyfile(Path(folder) / "planted.so", library.with_suffix(".part"))
            os.replace(library.with_suffix(".part"), library)
    return library


@contextmanager
def acting(faults: dict[str, Fault], name: str) -> Iterator[None]:
    """Within it, the fault ``name`` of a library with these faults acts."""
    os.environ["EMU_WITHOUT"] = str(1 + list(faults).index(name))
    try:
        yield
    finally:
        del os.environ["EMU_WITHOUT"]
