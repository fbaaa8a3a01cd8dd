"""Which runtime runs a network: the fastest that can, or the one that is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch

from ..errors import InputError
from ..networks import SRNetwork
from .cpu import choose as own
from .cpu import large_tiles
from .cpu.class_plan import ClassWeights
from .cpu.region_plan import RegionWeights
from .cpu.storage import Storage
from .openvino_cpu import plan as openvino
from .plan import Planner
from .precision import fast_bf16, in_bf16
from .pytorch.deep import DeepPlanner
from .pytorch.modules import ModulePlanner
from .pytorch.windows import WindowPlanner

RUNTIMES = {"own": "a plan of our own", "openvino": "OpenVINO", "pytorch": "PyTorch"}  # fastest first


def prepare(
    network: SRNetwork, device: torch.device, dtype: torch.dtype | None, runtime: str = "auto"
) -> tuple[Planner, dict[str, str]]:
    """The fastest way to run the network here, and the reasons against others that might be faster, by name.

    ``dtype`` None: what is fastest without a loss that can be seen. ``runtime``: one of RUNTIMES instead of the
    fastest; InputError where it cannot run. ``network`` is moved and converted as it runs on tensors; the planner takes
    a copy of its weights where photographs run in another dtype.
    """
    if runtime not in ("auto", *RUNTIMES):
        raise InputError(f"runtime {runtime!r} does not exist; choose auto or one of {', '.join(RUNTIMES)}")
    if network.windows is not None:
        return _in_windows(network, device, dtype, runtime)
    makers = {"own": _own, "openvino": _openvino, "pytorch": _pytorch}
    if runtime != "auto":
        planner = (
            _own(network, device, dtype, asked=True) if runtime == "own" else makers[runtime](network, device, dtype)
        )
        if isinstance(planner, str):
            raise InputError(f"runtime {runtime!r} cannot run {network.config.network} here: {planner}")
        others = {name: f"runtime {runtime} was asked for" for name in RUNTIMES if name != runtime}
        return planner, {RUNTIMES[name]: reason for name, reason in others.items()}
    refused: dict[str, str] = {}
    for name in ("own", "openvino"):
        planner = makers[name](network, device, dtype)
        if not isinstance(planner, str):
            return planner, refused
        refused[RUNTIMES[name]] = planner
    return _pytorch(network, device, dtype), refused


def deep(network: SRNetwork, device: torch.device, runtime: str = "auto") -> tuple[Planner, dict[str, str]]:
    """The same for photographs of more than 8 bits a channel; ``network``, of float32, becomes the planner's.

    What ``runtime`` cannot do for them PyTorch does.
    """
    refused = {"openvino": "it makes bytes, and the image has more than 8 bits a channel"}
    if network.windows is not None:
        assert network.pair is not None
        base, refine = network.pair
        planner, others = deep(base, device, runtime)
        return WindowPlanner(network, planner, DeepPlanner(_channels_last(refine.to(device)))), others
    made: Planner | str = f"runtime {runtime} was asked for"
    if runtime in ("auto", "own"):
        made = _own_deep(network, device, asked=runtime == "own")
    if not isinstance(made, str):
        return made, {RUNTIMES[name]: reason for name, reason in refused.items()}
    refused = {"own": made, **refused}
    return DeepPlanner(_channels_last(network.to(device))), {RUNTIMES[name]: why for name, why in refused.items()}


def _own_deep(network: SRNetwork, device: torch.device, asked: bool) -> Planner | str:
    """In float maps, in tiles of 4, whose rounding is no level of 65535; or why not."""
    if device.type != "cpu":
        return f"on {device} it makes bytes, and the image has more than 8 bits a channel"
    if network.alternatives:
        return "sub-images of classes are made of bytes"
    kept = own.STORAGES["float32"]
    against = RegionWeights.refused if network.pair is not None else own.against
    reason = own.supported() or _against_weights(network) or against(network, kept)
    reason = reason or (None if asked else own.slow(kept))
    if reason is not None:
        return reason
    if network.pair is not None:
        return RegionWeights.of(network, kept, torch.float32)
    found = own.weights_of(network, kept)
    if isinstance(found, str):
        return found
    kind, halves = found
    return kind(halves, kept, pixel=torch.float32)


def _own(network: SRNetwork, device: torch.device, dtype: torch.dtype | None, asked: bool = False) -> Planner | str:
    """The planner, or why there is none. ``asked``: also where it would be slow."""
    if device.type == "cuda":
        return _against_weights(network) or _on_gpu(network, device, dtype)
    if device.type != "cpu":
        return f"there are none for {device}"
    if network.staged is None:
        return f"there are none for {network.config.network} yet"
    reason = own.supported() or _against_weights(network)
    if reason is not None:
        return reason
    exact = dtype is not None
    make: Callable[[SRNetwork, Storage], Planner | str] = partial(large_tiles.of, exact=exact)
    against: Callable[[SRNetwork, Storage], str | None] = own.against
    faster = network.staged.weights.faster
    if network.pair is not None:
        make, faster = partial(RegionWeights.of, exact=exact), RegionWeights.faster
        against = RegionWeights.refused
    elif network.alternatives:
        make, against = ClassWeights.of, ClassWeights.refused
    return own.fastest(lambda kept: make(network, kept), lambda kept: against(network, kept), faster, dtype, asked)


def _in_windows(
    network: SRNetwork, device: torch.device, dtype: torch.dtype | None, runtime: str
) -> tuple[Planner, dict[str, str]]:
    """``prepare`` for the Base-Net, and PyTorch in no narrower a type than was asked for around what it makes."""
    assert network.pair is not None
    base, refine = network.pair
    planner, refused = prepare(base, device, dtype, runtime if device.type == "cpu" else "pytorch")
    modules = ModulePlanner(_channels_last(refine.to(device, dtype or torch.float32)))
    return WindowPlanner(network, planner, modules), refused


def _on_gpu(network: SRNetwork, device: torch.device, dtype: torch.dtype | None) -> Planner | str:
    from .cuda.choice import fastest

    return fastest(network, device, dtype)


def _openvino(network: SRNetwork, device: torch.device, dtype: torch.dtype | None) -> Planner | str:
    if device.type != "cpu":
        return f"it runs on the CPU, and the device is {device}"
    if network.pair is not None or network.alternatives:
        return "it does not run parts of an image"
    reason = openvino.unavailable(dtype) or _against_weights(network)
    if reason is not None:
        return reason
    try:
        return openvino.OpenvinoPlanner(network, dtype)
    except Exception as error:  # a network can meet any limit of tracing and of OpenVINO
        return f"it does not take this network ({(str(error).strip() or type(error).__name__).splitlines()[0]})"


def _pytorch(network: SRNetwork, device: torch.device, dtype: torch.dtype | None) -> Planner:
    network = _channels_last(network.to(device, dtype or torch.float32))
    if dtype is None and device.type == "cpu" and fast_bf16():
        small = in_bf16(network)
        if any(small):
            network = copy.deepcopy(network)
            network.convert(*(torch.bfloat16 if loses_nothing else torch.float32 for loses_nothing in small))
    return ModulePlanner(network)


def _channels_last(network: SRNetwork) -> SRNetwork:
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _against_weights(network: SRNetwork) -> str | None:
    """Damaged weights are left to PyTorch, whose plan looks at what comes of them."""
    sound = all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())
    return None if sound else "not all weights are finite numbers"
