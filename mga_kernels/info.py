"""What this installation can do: ``python -m mga_kernels.info``, or ``collect()`` for the same as a dict."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from . import _native
from .errors import BackendError
from .ops import operators
from .runtimes.cpu import choose
from .version import __version__

Facts = dict[str, Any]  # as JSON takes them


def collect() -> Facts:
    """Versions, device, CPU features, build facts, and for every operator its backends.

    ``["operators"][op][backend]`` is None where the backend can run and else the reason why it cannot, in order of
    preference. ``["build"]`` and ``["cpu"]["features"]`` are a one-line reason instead of a dict where the host module
    is missing, and ``["cpu"]["kernels"]`` where the library is missing or MGA_CPU_ISA cannot be met.
    """
    versions = {
        "mga_kernels": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(name) for name in ("triton", "numpy", "pillow", "safetensors")},
    }
    host = None if _native.HOST_ERROR else _native.host()
    return {
        "versions": versions,
        "platform": platform.platform(),
        "gpu": _gpu(),
        "cpu": {
            "threads": torch.get_num_threads(),
            "features": host.cpu_features() if host else _native.HOST_ERROR,
            "kernels": _kernels(),
        },
        "build": host.build_facts() if host else _native.HOST_ERROR,
        "operators": {
            name: {backend.name: backend.unavailable() for backend in operator.backends.values()}
            for name, operator in operators().items()
        },
    }


def _kernels() -> dict[str, str] | str:
    """Which instruction set the operators use on the CPU, and which kernels the convolutions of our own."""
    if _native.LIBRARY_ERROR is not None:
        return _native.LIBRARY_ERROR
    try:
        kept = {one: choose.slow(one) for one in choose.STORAGES.values()}
        fast = [f"{one.kernels()} in {one.name}" for one, slow in kept.items() if slow is None]
        slowly = [f"{one.kernels()}: {slow}" for one, slow in kept.items()]
        return {"operators": _native.operator_kernels(), "convolutions": " and ".join(fast) or slowly[0]}
    except BackendError as error:
        return str(error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpu() -> dict[str, Any] | str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch_cuda": torch.version.cuda,
    }


def _line(value: object) -> str:
    if isinstance(value, dict):
        if all(isinstance(item, bool) for item in value.values()):
            return " ".join(name for name, present in value.items() if present) or "none"
        return ", ".join(f"{name} {_line(item)}" for name, item in value.items() if item is not None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def render(facts: Facts) -> str:
    """The dict of ``collect()`` as text for people."""
    lines = [f"{name:<12} {text}" for name, text in facts["versions"].items()]
    lines += [f"{name:<12} {_line(facts[name])}" for name in ("platform", "gpu")]
    lines += [f"{'cpu':<12} {facts['cpu']['threads']} threads, {_line(facts['cpu']['features'])}"]
    lines += [f"{'kernels':<12} {_line(facts['cpu']['kernels'])}"]
    lines += [f"{'build':<12} {_line(facts['build'])}", "", "operators, each backend in order of preference:"]
    for name, backends in facts["operators"].items():
        lines.append(f"  {name}")
        lines += [f"    {backend:<10} {reason or 'can run'}" for backend, reason in backends.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(collect()))
