"""Keeps the memory of large tensors in the process while something needs it again and again.

glibc takes every allocation above 32 MiB from the system and returns it when it is freed, so a network that runs module
by module over a large image spends much of its time in page faults: the system clears the same pages for each tensor.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .threads import Lock

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MIB = 1 << 20
_HUGE = 2 * _MIB
_MADV_HUGEPAGE = 14  # from mman.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: 64 * _MIB}
# What glibc adapts itself to in a process that has freed large blocks; once set, a parameter does not adapt any more.
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 64 * _MIB, _TOP_PAD: _MIB // 8, _MMAP_THRESHOLD: 32 * _MIB}

_lock = Lock()  # re-entrant: an owner may be collected while another registers
_owners = 0


def keep_memory(owner: object) -> bool:
    """Until ``owner`` is collected, freed memory stays with the process; False where the C library is not glibc.

    With the last owner gone, unused memory goes back to the system and glibc does as usual.
    """
    global _owners
    libc = _glibc()
    if libc is None:
        return False
    with _lock:
        if not _owners:
            _set(libc, _KEEPING)
        _owners += 1
    weakref.finalize(owner, _release, libc).atexit = False
    return True


def huge_pages(tensor: Tensor) -> bool:
    """Ask the system for huge pages in the memory of a tensor that was not written yet; False where it has none.

    With pages of 4 KiB a convolution over a large image misses the table of pages for every line of its rows.
    """
    libc, address, size = _glibc(), tensor.data_ptr() if tensor.device.type == "cpu" else 0, tensor.nbytes
    first, end = -(-address // _HUGE) * _HUGE, (address + size) // _HUGE * _HUGE
    if libc is None or not address or not hasattr(libc, "madvise") or end <= first:
        return False
    given = (ctypes.c_void_p(first), ctypes.c_size_t(end - first), ctypes.c_int(_MADV_HUGEPAGE))
    return libc.madvise(*given) == 0


def empty_in_huge_pages(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU, from 2 MiB on in as many huge pages as it fills, where the system has them.

    The first write to a page waits until the system has cleared it: 6000 times in a picture of
    3840x2160, 9 ms, and in huge pages 2 ms.
    """
    import torch

    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE:
        return torch.empty(*shape, dtype=dtype, device="cpu")
    memory = torch.empty(size + _HUGE, dtype=torch.uint8, device="cpu")
    made = memory[-memory.data_ptr() % _HUGE :][:size]
    huge_pages(made)
    return made.view(dtype).view(*shape)


def _release(libc: ctypes.CDLL) -> None:
    global _owners
    with _lock:
        _owners -= 1
        if not _owners:
            _set(libc, _USUAL)
            give_back()


def give_back() -> None:
    """Unused memory goes back to the system, where the C library is glibc."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
    except (OSError, TypeError):  # TypeError: Windows
        return None


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        libc.mallopt(parameter, value)
