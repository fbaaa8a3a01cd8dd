"""The networks that can be mask-guided: those of the package, and those that users add.

A network of one's own is one file that defines its two halves and calls ``register_network`` (``examples/imdn.py`` is
one, ``docs/own_network.md`` explains it). Commands find it where the environment variable MGA_NETWORKS names the file,
or a module that can be imported; several are separated by commas.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError

BUILT_IN = ("fsrcnn", "pan", "rfdn", "srresnet", "rcan")
SPLIT = "-split"  # how the names of published networks cut in two end (``networks.split``)

Channels = int | Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True)
class Network:
    """A network as two halves that can be called apart.

    ``base(scale, blocks, **settings)`` makes a module: image (N, 3, H, W) in 0..``value_range`` -> coarse image
    (N, 3, sH, sW) and coarse feature (N, ``feature_channels``, H, W). Its method ``upsample`` leads from the coarse
    feature to the coarse image, or to what the network adds to an upsampled input.

    ``refine(scale, blocks, **settings)`` makes a module: patches of the coarse feature (N, C, p + 2h, p + 2h) -> HR
    patches (N, 3, sp, sp), with h its attribute ``halo``, for any p, and for a whole feature with a border of h.

    Halves may say what images larger than memory need, which are cut into tiles (``mga_kernels.plans.tiles``), in
    attributes. ``receptive_field``: LR pixels to each side by which what they return depends on what they get, None
    (the default) where it depends on all of it; without that of the Base-Net an image is never cut, without that of
    the Refine-Net not for -D. Of the Base-Net also ``tile_multiple``: a tile may start at its multiples, and
    ``takes_place``: its ``forward`` has an argument ``place`` (``layers.Place``), and needs it in a tile.

    ``split``: blocks of the two halves by default. ``minimum_size``: sides of the smallest image that the Base-Net
    takes. ``working_values``: numbers alive for each LR pixel at the peak of a forward pass, measured at x4; what an
    image needs in memory is estimated from it.

    ``feature_channels`` may be a function of the settings of the Base-Net. ``mask_channels``, in the same form: so many
    of the feature's first channels are all that the mask is made from. A Refine-Net whose ``whole`` takes a feature
    (N, C, H, W) without a border is called by it for -D.
    """

    name: str
    base: Callable[..., nn.Module]
    refine: Callable[..., nn.Module]
    feature_channels: Channels
    split: tuple[int, int]
    value_range: float = 1.0
    minimum_size: int = 1
    working_values: int = 1000
    mask_channels: Channels | None = None


_networks: dict[str, Network] = {}
_imported: set[str] = set()  # what MGA_NETWORKS named and is imported


def register_network(network: Network) -> Network:
    """Make a network known by its name.

    The same halves from the same file, imported or executed again, replace what they registered before. InputError
    where the name belongs to another network.
    """
    known = _networks.get(network.name)
    if network.name in BUILT_IN or network.name in _split():
        raise InputError(f"network: {network.name!r} is the name of a network of the package; choose another name")
    if known is not None and _source(known) != _source(network):
        raise InputError(
            f"network: the name {network.name!r} is taken by the network of {_source(known)[0][0]}; choose another name"
        )
    _networks[network.name] = network
    return network


def get_network(name: str) -> Network:
    """The network of this name; InputError with the known names where there is none."""
    if name in BUILT_IN:
        return _built_in(name)
    if name.endswith(SPLIT) and name in (split := _split()):
        return split[name]
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


def _split() -> dict[str, Network]:
    return {network.name: network for network in importlib.import_module(f"{__package__}.split").NETWORKS}


def _source(network: Network) -> list[tuple[str, object]]:
    """File (or module, where there is no file) and name of each half."""
    sources: list[tuple[str, object]] = []
    for half in (network.base, network.refine):
        module = sys.modules.get(half.__module__)
        sources.append((getattr(module, "__file__", None) or half.__module__, getattr(half, "__qualname__", half)))
    return sources


def _import_named() -> None:
    """Import the files and modules that MGA_NETWORKS names, each once."""
    for entry in filter(None, map(str.strip, os.environ.get("MGA_NETWORKS", "").split(","))):
        path = Path(entry).resolve() if entry.endswith(".py") else None
        name = "mga_network" + re.sub(r"\W", "_", str(path)) if path else entry
        if name in _imported:
            continue
        before, loaded = dict(_networks), name in sys.modules
        try:
            _import(name, path)
        except Exception as error:  # whatever a user's file may raise
            _forget(name)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"network: MGA_NETWORKS names {entry}, which cannot be imported: {reason}") from error
        if _networks == before and not loaded:
            _forget(name)
            raise InputError(
                f"network: MGA_NETWORKS names {entry}, which registers no network; "
                "it must call mga_kernels.networks.register_network"
            )


def _import(name: str, path: Path | None) -> None:
    _imported.add(name)  # first, so that a file that asks for the known networks does not import itself again
    if path is None:
        importlib.import_module(name)
        return
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]


def _forget(name: str) -> None:
    """So that the next question gives the same answer."""
    _imported.discard(name)
    sys.modules.pop(name, None)
