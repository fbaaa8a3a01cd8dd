"""The networks that can be mask-guided: those of the package, and those that users add.

A network of one's own is one file that defines its two halves and calls ``register_network`` (``examples/imdn.py`` is
one). Commands find it where the environment variable MGA_NETWORKS names the file, or a module that can be imported;
several are separated by commas.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..errors import InputError

BUILT_IN = ("fsrcnn", "pan", "rfdn", "srresnet", "rcan")


@dataclass(frozen=True)
class Network:
    """A network as two halves that can be called apart.

    ``base(scale, blocks, **settings)`` makes a module: image (N, 3, H, W) in 0..``value_range`` -> coarse image
    (N, 3, sH, sW) and coarse feature (N, ``feature_channels``, H, W). Its method ``upsample`` leads from the coarse
    feature to the coarse image, or to what the network adds to an upsampled input.

    ``refine(scale, blocks, **settings)`` makes a module: patches of the coarse feature (N, C, p + 2h, p + 2h) -> HR
    patches (N, 3, sp, sp), with h its attribute ``halo``, for any p, and for a whole feature with a border of h.

    ``split``: blocks of the two halves by default. ``minimum_size``: sides of the smallest image that the Base-Net
    takes. ``working_values``: numbers alive for each LR pixel at the peak of a forward pass, measured at x4; what an
    image needs in memory is estimated from it.
    """

    name: str
    base: Callable[..., nn.Module]
    refine: Callable[..., nn.Module]
    feature_channels: int
    split: tuple[int, int]
    value_range: float = 1.0
    minimum_size: int = 1
    working_values: int = 1000


_networks: dict[str, Network] = {}


def register_network(network: Network) -> Network:
    """Make a network known by its name; InputError where the name is taken by another one."""
    if network.name in BUILT_IN or _networks.get(network.name, network) != network:
        raise InputError(f"network: the name {network.name!r} is taken; choose another one")
    _networks[network.name] = network
    return network


def get_network(name: str) -> Network:
    """The network of this name; InputError with the known names where there is none."""
    if name in BUILT_IN:
        return _built_in(name)
    if name not in _networks:
        _import_named()
    if name not in _networks:
        raise InputError(
            f"network: {name!r} is not known; choose one of {', '.join(network_names())}, or name the file that "
            "registers it in the environment variable MGA_NETWORKS"
        )
    return _networks[name]


def network_names() -> tuple[str, ...]:
    """Names of all networks, those of the package first."""
    _import_named()
    return (*BUILT_IN, *sorted(_networks))


def _built_in(name: str) -> Network:
    return importlib.import_module(f"{__package__}.{name}").NETWORK


def _import_named() -> None:
    """Import the modules and files that MGA_NETWORKS names, each once."""
    for entry in filter(None, os.environ.get("MGA_NETWORKS", "").split(",")):
        path = Path(entry).resolve()
        name = f"mga_networks.{path.stem}" if path.suffix == ".py" else entry
        if name in sys.modules:
            continue
        try:
            if path.suffix == ".py":
                spec = importlib.util.spec_from_file_location(name, path)
                sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
                spec.loader.exec_module(module)  # type: ignore[union-attr]
            else:
                importlib.import_module(name)
        except (ImportError, OSError, SyntaxError) as error:
            sys.modules.pop(name, None)
            raise InputError(f"network: MGA_NETWORKS names {entry}, which cannot be imported: {error}") from None
