"""Loads what the build made: the operators (``_C.so``, namespace ``torch.ops.mga``) and the host module (``_host``).

Nothing is compiled here. Where a part was not built or does not load, the reason is kept and the reference runs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from . import records
from .errors import BackendError, InputError
from .version import LIBRARY

REMEDY = "run `pip install --no-build-isolation -e .` in the source tree"


def _load_library() -> str | None:
    if not LIBRARY.exists():
        return f"the native library is not built: {REMEDY}"
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        return f"the native library does not load ({str(error).splitlines()[0]}): {REMEDY}"
    try:
        other = records.adopt(torch.ops.mga.record_fields)
    except AttributeError:
        other = "it has no records"
    return other and f"the native library was built from other sources than this Python ({other}): {REMEDY}"


def _load_host() -> tuple[ModuleType | None, str | None]:
    try:
        return import_module("._host", __package__), None
    except ImportError as error:
        return None, f"the host module does not load ({error}): {REMEDY}"


LIBRARY_ERROR: str | None = _load_library()
_HOST, HOST_ERROR = _load_host()


def has_kernel(op: str, device: str) -> bool:
    """Whether the library holds a kernel of ``op`` for ``device`` ("cpu" or "cuda")."""
    return LIBRARY_ERROR is None and torch._C._dispatch_has_kernel_for_dispatch_key(f"mga::{op}", device.upper())


def host() -> ModuleType:
    """The pybind11 module: ``build_facts()`` and ``cpu_features()``."""
    if _HOST is None:
        raise BackendError(f"mga_kernels: {HOST_ERROR}")
    return _HOST


def instruction_set() -> str:
    """The best set that this processor has and the build has kernels for, or the one that MGA_CPU_ISA names.

    Kernels that have none for it are of the best set below it.

    BackendError where MGA_CPU_ISA names what this processor or this build has not got.
    """
    return call("instruction_set")


def operator_kernels() -> str:
    """Which kernels of operators run on the CPU (see ``instruction_set``)."""
    return call("operator_kernels")


def convolution_kernels() -> tuple[str, bool]:
    """Which kernels the convolutions of our own run on, and whether they are fast (see ``instruction_set``)."""
    return call("convolution_kernels"), call("convolution_kernels_are_fast")


def map_kernels() -> tuple[str, bool]:
    """The same for the convolutions in float maps."""
    return call("map_kernels"), call("map_kernels_are_fast")


def call(op: str, *arguments: Any) -> Any:
    """Run ``torch.ops.mga.<op>``; what the operator refuses becomes an InputError with its message."""
    kernel = getattr(torch.ops.mga, op).default
    if torch.compiler.is_compiling():
        return kernel(*arguments)
    try:
        return kernel(*arguments)
    except RuntimeError as error:
        # The library puts function, file and line in front of its own messages, and those start with the operator.
        _, found, message = str(error).partition("MGA_CPU_ISA=")
        if found:
            raise BackendError(f"{found}{message.splitlines()[0]}") from None
        _, found, message = str(error).partition(f" {op}: ")
        if not found or "CUDA error" in message:
            raise
        raise InputError(f"{op}: {message.splitlines()[0]}") from None


def register_writing(op: str) -> None:
    """Of a native operator that has no result and only writes into what it is given: it has nothing to fake."""
    register_fake(op)(lambda *_: None)


def register_fake(op: str) -> Callable[[Callable], Callable]:
    """Decorator for the shape function of a native operator; does nothing where there is no library."""

    def register(function: Callable) -> Callable:
        if LIBRARY_ERROR is None:
            torch.library.register_fake(f"mga::{op}")(function)
        return function

    return register
