"""The emulation of CUDA with a detector of data races in it: see cuda_emulation/races.cpp.

As a plugin of pytest (``-p cuda_races``) it lets every test of the emulation run so, and fails those that race.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cuda_emulated
import pytest
import torch
from cuda_emulated import BINDINGS, CSRC, HERE, kept

WATCH = ["-DEMU_RACES", "-fsanitize=thread", "-g1"]
# Its last block reads what the others wrote: they are ordered by a counter in memory, of which the detector knows
# nothing. Of its global memory nothing is tracked.
ORDERED_BY_A_COUNTER = "filter_and_select"


def flags_of(source: Path) -> list[str]:
    """What belongs to the emulation is not watched."""
    return WATCH if source.suffix == ".cu" else WATCH[:1]


@functools.cache
def objects() -> tuple[Path, ...]:
    sources = [*sorted(CSRC.rglob("*.cu")), BINDINGS, HERE / "cuda_emulation/races.cpp"]
    return kept(sources, flags_of, *WATCH)


@functools.cache
def watched_library() -> ctypes.CDLL:
    return load(objects()[0].with_name("emulated.so"))


def load(path: Path) -> ctypes.CDLL:
    library = cuda_emulated.load(path)
    library.race_found.restype = ctypes.c_char_p
    return library


def found(library: ctypes.CDLL) -> tuple[list[str], int]:
    """The races since the last call, and the number of accesses that were looked at."""
    count = ctypes.c_long()
    return library.race_found(ctypes.byref(count)).decode().splitlines(), count.value


@contextmanager
def watching() -> Iterator[None]:
    """Within it the global memory of every launch is tracked: that of its tensors."""
    start = cuda_emulated.start

    def tracked(library: ctypes.CDLL, kernel: str, *arguments: Any) -> int:
        tensors = [a for a in arguments if isinstance(a, torch.Tensor) and kernel != ORDERED_BY_A_COUNTER]
        for storage in {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}.values():
            library.race_track(ctypes.c_void_p(storage.data_ptr()), ctypes.c_ulong(storage.nbytes()))
        try:
            return start(library, kernel, *arguments)
        finally:
            library.race_forget()

    cuda_emulated.start = tracked
    try:
        yield
    finally:
        cuda_emulated.start = start


def races(check: Callable[[ctypes.CDLL], object], library: ctypes.CDLL) -> list[str]:
    """What ``check(library)`` meets."""
    found(library)
    with watching():
        check(library)
    lines, count = found(library)
    assert count > 1000, "the kernels were not compiled to be watched"
    return lines


def pytest_configure() -> None:
    cuda_emulated.loaded_library = lambda: watched_library()  # which fixtures ask for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    found(watched_library())
    try:
        with watching():
            yield
    finally:
        lines, _ = found(watched_library())
        assert not lines, "\n".join(lines)
