"""How much memory this process may still take, so that a job too large is refused before it starts."""

from __future__ import annotations

import math
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutOfMemoryError
from ..quantities import real
from .groups import control_groups, text_of

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
RESERVE = 0.1  # share of what is available that is left to everything else
_UNLIMITED = 1 << 60
_LIMITS = (  # files of the limit and the usage, and what the statistics call memory that can be had back
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_CPU_IS_FULL = ("not enough memory", "can't allocate memory")  # PyTorch's allocator has no error of its own there


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process can allocate without swapping: the smallest of what the system and its limits leave.

    Looks at MemAvailable, at the memory limit of every control group above the process (v2 and v1), and at the
    address-space limit (``ulimit -v``); where /proc does not exist, at the physical memory known to ``sysconf``.
    """
    room = [_system_memory(proc), _address_space(proc)]
    room += [_group_room(folder) for folder in control_groups("memory", proc, cgroup)]
    return max(0, min(room))


def parse_memory(memory: int | str) -> int:
    """Bytes of a number of bytes or a text such as "8GiB", "500 MB" or "1.5g" (a single letter is binary)."""
    size = real(memory)
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", memory.lower(), re.ASCII)
        number, letter, ending = found.groups() if found else ("0", "", "")
        size = float(number) * (1000 if ending == "b" else 1024) ** " kmgt".index(letter or " ")
    if size is None or not 1 <= size < math.inf:
        raise InputError(f'memory: expected a number of bytes or a text such as "8GiB" or "500MB", got {memory!r}')
    return int(size)


@contextmanager
def memory_errors(what: str, where: str, remedy: str) -> Iterator[None]:
    """An allocator's own error becomes an OutOfMemoryError: ``what`` needs more than ``where`` has."""
    try:
        yield
        return
    except OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as error:
        import torch

        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in _CPU_IS_FULL):
            raise
    raise OutOfMemoryError(f"{what} needs more memory than {where} has; {remedy}") from None


def bare(error: OutOfMemoryError) -> OutOfMemoryError:
    """The error without the frames of where it was raised, which keep alive what fills the memory."""
    error.__traceback__ = error.__context__ = None
    return error


_pools: weakref.WeakKeyDictionary[object, tuple[int, int]] = weakref.WeakKeyDictionary()


def keep_pool(owner: object, pool: tuple[int, int]) -> None:
    """While ``owner`` lives, nobody else gets what is free in this pool of PyTorch's memory: a CUDA graph needs it."""
    _pools[owner] = pool


def device_memory(device: torch.device) -> int:
    """Bytes this process can still take on a device: on a GPU what is free, and what PyTorch holds and does not use."""
    if device.type != "cuda":
        return available_memory()
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if pools := set(_pools.values()):
        index = torch.cuda.current_device() if device.index is None else device.index
        for segment in torch.cuda.memory_snapshot():
            if segment["device"] == index and tuple(segment["segment_pool_id"]) in pools:
                unused -= segment["total_size"] - segment["allocated_size"]
    return torch.cuda.mem_get_info(device)[0] + unused


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raise OutOfMemoryError unless ``needed`` bytes are available; ``what`` needs them, ``remedy`` avoids it."""
    available = available_memory()
    if needed > available:
        raise out_of_memory(needed, available, what, remedy)


def out_of_memory(needed: int, available: int, what: str, remedy: str) -> OutOfMemoryError:
    """The error that says so."""
    return OutOfMemoryError(
        f"{what} needs about {_in_words(needed)} of memory and {_in_words(available)} are available; {remedy}"
    )


def _in_words(size: int) -> str:
    """ "1.5 GiB", or what is no tenth of that in a smaller unit, so that it is not said to be nothing."""
    for unit, name in ((GIB, "GiB"), (GIB >> 10, "MiB"), (GIB >> 20, "KiB")):
        if size >= 0.1 * unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _field(text: str, name: str) -> int | None:
    """The number behind ``name`` in a file of "name value" or "name: value" lines."""
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _system_memory(proc: Path) -> int:
    available = _field(text_of(proc / "meminfo"), "MemAvailable")
    if available is not None:
        return available * 1024
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        try:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            continue
    return _UNLIMITED


def _address_space(proc: Path) -> int:
    try:
        import resource
    except ImportError:  # not a Unix
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED
    used = _field(text_of(proc / "self/status"), "VmSize")
    return soft - (used or 0) * 1024


def _group_room(group: Path) -> int:
    """Limit minus usage of a control group, of version 2 or 1."""
    for names in _LIMITS:
        limit, usage = (text_of(group / name).strip() for name in names[:2])
        if limit.isdigit() and usage.isdigit():
            cache = _field(text_of(group / "memory.stat"), names[2]) or 0  # the kernel gives this back under pressure
            return int(limit) - max(0, int(usage) - cache)
    return _UNLIMITED
