"""Which implementation of an operator runs.

An operator has backends, in its own order of preference. For every call each of them says None or why it cannot run;
the first that says None runs. ``MGA_BACKEND=name`` forces one and raises BackendError where it cannot run.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .. import _native
from ..errors import BackendError, InputError

FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # what a GPU's matrix units and Triton's scalars go up to
BACKENDS = ("cuda", "triton", "cpu", "reference")
_TRITON = torch.library.Library("mga_triton", "DEF")
_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
Result = TypeVar("Result")
_operators: dict[str, Operator] = {}
_last: dict[str, str] = {}


class Backend:
    """The reference: plain PyTorch, any device and dtype, with gradients."""

    name = "reference"

    def __init__(self, run: Callable):
        self.run = run

    def unavailable(self) -> str | None:
        """Why no call at all can run here, or None."""
        return None

    def can_run(self, *arguments: object) -> str | None:
        """Why this call cannot run here, or None."""
        return None


class NativeBackend(Backend):
    """A kernel of the native library for tensors of one device type; it has no backward."""

    def __init__(self, op: str, device: str, dtypes: Collection[torch.dtype] | None, refuses: Callable | None = None):
        super().__init__(lambda *arguments: _native.call(op, *arguments))
        self.name = device
        self.dtypes = None if dtypes is None else frozenset(dtypes)  # None: the contract checks them
        self.refuses = refuses  # (*arguments) -> why this call cannot run, or None; for what dtypes do not say
        self.missing = None if _native.has_kernel(op, device) else self._why_missing()

    def _why_missing(self) -> str:
        if _native.LIBRARY_ERROR is not None:
            return _native.LIBRARY_ERROR
        return f"the library was built without {self.name} kernels of this operator"

    def unavailable(self) -> str | None:
        if self.missing is None and self.name == "cuda":
            if torch.version.cuda is None:
                return "the kernels are compiled in, but this torch has no CUDA"
            if not torch.cuda.is_available():
                return "the kernels are compiled in, but there is no usable NVIDIA GPU"
        return self.missing

    def can_run(self, *arguments: object) -> str | None:
        missing = self.missing
        if missing is None and self.name == "cuda" and torch.version.hip is not None:
            missing = "this torch calls AMD GPUs cuda; the kernels are for NVIDIA"
        reason = _unfit(arguments, self.name, missing, self.dtypes)
        return self.refuses(*arguments) if reason is None and self.refuses else reason


class NativeInPlaceBackend(NativeBackend):
    """A native operator that returns nothing and changes its first argument, which a call then gives back."""

    def __init__(self, op: str, device: str, dtypes: Collection[torch.dtype]):
        super().__init__(op, device, dtypes)
        self.run = _changing(self.run)


class TritonBackend(Backend):
    """Triton kernels for tensors on a GPU; under Triton's interpreter (TRITON_INTERPRET=1), for tensors on the CPU.

    The kernel is a torch operator, ``torch.ops.mga_triton.<op>``, with the arguments of the definition, beside which
    stands ``fake``, which gives the result without values. ``module`` holds a launcher of the operator's name; it is
    imported when the operator first runs, so that nothing needs Triton before. An operator whose name ends in _ changes
    its first argument, or those that ``changes`` names, and its launcher returns nothing. No backward.
    """

    name = "triton"

    def __init__(
        self,
        op: str,
        module: str,
        definition: Callable,
        dtypes: Collection[torch.dtype],
        refuses: Callable | None = None,
        changes: Collection[str] = (),
    ):
        operator = _define(op, module, definition, changes)
        super().__init__(_changing(operator) if op.endswith("_") else operator)
        self.dtypes = frozenset(dtypes)
        self.refuses = refuses  # (*arguments) -> why this call cannot run, or None; for what dtypes do not say

    def unavailable(self) -> str | None:
        if not _TRITON_INSTALLED:
            return "Triton is not installed"
        if not _interpreting() and not torch.cuda.is_available():
            return "there is no GPU that torch can use"
        return None

    def can_run(self, *arguments: object) -> str | None:
        reason = _unfit(arguments, "cpu" if _interpreting() else "cuda", self.unavailable(), self.dtypes)
        return self.refuses(*arguments) if reason is None and self.refuses else reason


def _unfit(
    arguments: tuple, device: str, missing: str | None = None, dtypes: Collection[torch.dtype] | None = None
) -> str | None:
    """Why a kernel without backward for this device, and these dtypes of the first tensor, cannot run the call."""
    tensors = list(_tensors(arguments))
    for tensor in tensors:
        if tensor.device.type != device:
            return f"a tensor is on {tensor.device.type}"
    if missing is not None:
        return missing
    if dtypes is not None and tensors[0].dtype not in dtypes:
        return f"{tensors[0].dtype} is not among its dtypes"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are being recorded and this kernel has no backward"
    return None


def _tensors(arguments: Iterable[object]) -> Iterator[Tensor]:
    """Those among the arguments and in lists of them."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _tensors(argument)


def _define(op: str, module: str, definition: Callable, changes: Collection[str]) -> Callable:
    def launch(*arguments: Any) -> Any:
        with torch.cuda.device_of(arguments[0]):
            return getattr(importlib.import_module(module), op)(*arguments)

    def fake(*arguments: Any) -> Any:
        return None if op.endswith("_") else sys.modules[definition.__module__].fake(*arguments)

    first = next(iter(inspect.signature(definition).parameters))
    changed = list(changes) or ([first] if op.endswith("_") else [])
    schema = torch.library.infer_schema(definition, mutates_args=changed)
    _TRITON.define(op + (schema.replace("-> Tensor", "-> ()") if op.endswith("_") else schema))
    for device in ("CPU", "CUDA"):  # tensors of the CPU are for the interpreter
        _TRITON.impl(op, launch, device)
    torch.library.register_fake(f"mga_triton::{op}", fake, lib=_TRITON)
    return getattr(torch.ops.mga_triton, op).default


def _changing(operator: Callable) -> Callable:
    def run(tensor: Tensor, *arguments: Any) -> Tensor:
        operator(tensor, *arguments)
        # Tell autograd, so that a graph which saved the tensor before refuses to use the changed values.
        if not torch.compiler.is_compiling() and not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
        return tensor

    return run


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


class Operator(Generic[Result]):
    """One operator and its backends, best first, called with the arguments of its contract after they were checked."""

    def __init__(self, name: str, *backends: Backend):
        self.name = name
        self.backends = {backend.name: backend for backend in backends}
        _operators[name] = self

    def choose(self, *arguments: object) -> Backend:
        forced = os.environ.get("MGA_BACKEND")
        if forced:
            return self._forced(forced, *arguments)
        for backend in self.backends.values():
            if backend.can_run(*arguments) is None:
                return backend
        raise BackendError(f"{self.name}: no backend can run this call")

    def _forced(self, name: str, *arguments: object) -> Backend:
        if name not in BACKENDS:
            raise BackendError(f"MGA_BACKEND={name}: there is no such backend; choose one of {', '.join(BACKENDS)}")
        if name not in self.backends:
            raise BackendError(f"MGA_BACKEND={name}: {self.name} has only {', '.join(self.backends)}")
        reason = self.backends[name].can_run(*arguments)
        if reason is not None:
            raise BackendError(f"MGA_BACKEND={name}: {self.name} cannot run this call there: {reason}")
        return self.backends[name]

    def __call__(self, *arguments: object) -> Result:
        backend = self.choose(*arguments)
        result = backend.run(*arguments)
        _last[self.name] = backend.name
        return result


def operators() -> dict[str, Operator]:
    """Every operator by name."""
    return dict(_operators)


def last_backend(op: str) -> str | None:
    """The backend that ran the last finished call of ``op`` in this process, or None before the first."""
    if op not in _operators:
        raise InputError(f"last_backend: there is no operator {op!r}; choose one of {', '.join(_operators)}")
    return _last.get(op)
