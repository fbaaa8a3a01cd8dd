"""What a network is to the rest of the package, and which are known: those of the catalogue, and those of users.

A network of one's own is a file or a folder that calls ``register_network`` (``examples/residual``; docs/extending.md
explains it). Commands find it where the environment variable MGA_NETWORKS names the file, the folder, or a module that
can be imported; several are separated by commas.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor, nn

from ..catalogue import ARCHITECTURES, FOLDER
from ..errors import InputError

if TYPE_CHECKING:
    from ..checkpoints.spelling import Published
    from ..runtimes.cpu.plan import PairWeights
    from .divided import Layout

SPLIT = "-split"  # how the names of published networks cut in two end

Channels = int | Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True)
class Extension:
    """A published network, whose settings are ``settings``, as the Base-Net of one that begins as good as it is.

    ``start(base, refine, blocks, largest)`` sets the Refine-Net so that it returns the coarse image; ``blocks`` of the
    two, ``largest`` (C,) the largest magnitude of each channel of the coarse feature. ``trained(refine)``: the
    parameters of which training may change this.
    """

    start: Callable[[nn.Module, nn.Module, tuple[int, ...], Tensor], None]
    trained: Callable[[nn.Module], list[nn.Parameter]]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """A network as two halves that can be called apart, and what else is known of it.

    ``base(scale, blocks, **settings)`` makes a module: image (N, 3, H, W) in 0..``value_range`` -> coarse image
    (N, 3, sH, sW) and coarse feature (N, ``feature_channels``, H, W). Its method ``upsample`` leads from the coarse
    feature to the coarse image, or to what the network adds to an upsampled input. With all blocks of the published
    network it is that network.

    ``refine(scale, blocks, **settings)`` makes a module: patches of the coarse feature (N, C, p + 2h, p + 2h) -> HR
    patches (N, 3, sp, sp), with h its attribute ``halo``, for any p, and for a whole feature with a border of h. A
    network without it exists whole only.

    Halves may say what images larger than memory need, which are cut into tiles (``runtimes.tiles.tiled``), in
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

    The other fields may be "module:name" of what they hold, which is imported when ``part`` is asked for it.
    ``published``, a ``checkpoints.spelling.Published``: what its files look like, so that they are recognised.
    ``divided``: the Network, called after this one with "-split" behind it, whose halves are the published network cut
    in two without loss, which ``mga convert`` makes; its ``layout`` (``networks.divided.Layout``) says where weights
    go. A network whose own halves are such a cut has a ``layout`` itself. ``cpu``, a class of
    ``runtimes.cpu.plan.PairWeights``: how the halves run in our convolutions. ``extension``, an Extension: how
    ``mga convert --extend`` makes this network, with its own Refine-Net, of a published one. ``passes_on``: its halves
    are chains of convolutions without skips, so that training may start with layers that pass on what they are given.
    """

    name: str
    base: Callable[..., nn.Module]
    refine: Callable[..., nn.Module] | None = None
    feature_channels: Channels = 3
    split: tuple[int, ...] = ()
    value_range: float = 1.0
    minimum_size: int = 1
    working_values: int = 1000
    mask_channels: Channels | None = None
    published: Published | str | None = None
    divided: Network | str | None = None
    layout: Layout | None = None
    cpu: type[PairWeights] | str | None = None
    extension: Extension | str | None = None
    passes_on: bool = False

    @property
    def input_range(self) -> str:
        """``value_range`` as ``WholeConfig`` says it."""
        return "0..255" if self.value_range == 255 else "0..1"

    @overload
    def part(self, field: Literal["published"]) -> Published | None: ...
    @overload
    def part(self, field: Literal["divided"]) -> Network | None: ...
    @overload
    def part(self, field: Literal["cpu"]) -> type[PairWeights] | None: ...
    @overload
    def part(self, field: Literal["extension"]) -> Extension | None: ...
    def part(self, field: str) -> object:
        """What a field holds, imported where it is named by a string; None where there is nothing.

        InputError where what it names cannot be imported.
        """
        value = getattr(self, field)
        if not isinstance(value, str):
            return value
        module, _, name = value.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"network: {field} of {self.name!r} is {value!r}, which cannot be imported: {error}; "
                'give "module:name", or the object itself'
            ) from error

    @property
    def weights(self) -> type[PairWeights]:
        """``part("cpu")`` of a network that has it."""
        kind = self.part("cpu")
        assert kind is not None, self.name
        return kind

    def cut(self) -> Network | None:
        """The network whose halves are this one cut in two without loss.

        InputError where a model of it could not be loaded again.
        """
        if self.layout is not None:
            return self
        divided = self.part("divided")
        if divided is not None and (divided.name != self.name + SPLIT or divided.layout is None):
            raise InputError(
                f"network: divided of {self.name!r} is {divided.name!r}; "
                f"it must be called {self.name + SPLIT!r}, and have a layout"
            )
        return divided


_networks: dict[str, Network] = {}
_imported: set[str] = set()  # what MGA_NETWORKS named and is imported


def register_network(network: Network) -> Network:
    """Make a network known by its name.

    The same halves from the same file, imported or executed again, replace what they registered before. InputError
    where the name belongs to another network.
    """
    name = network.name
    known = _networks.get(name)
    if name in ARCHITECTURES or name.removesuffix(SPLIT) in ARCHITECTURES:
        raise InputError(f"network: {name!r} is the name of a network of the package; choose another name")
    if known is not None and _source(known) != _source(network):
        raise InputError(
            f"network: the name {name!r} is taken by the network of {_source(known)[0][0]}; choose another name"
        )
    _networks[name] = network
    return network


def get_network(name: str) -> Network:
    """The network of this name; InputError with the known names where there is none."""
    if name in ARCHITECTURES:
        return importlib.import_module(f"{FOLDER}.{name}").NETWORK
    whole = name.removesuffix(SPLIT)
    if name not in _networks and whole not in ARCHITECTURES:
        _import_named()
    if name in _networks:
        return _networks[name]
    if whole != name and (whole in ARCHITECTURES or whole in _networks):
        divided = get_network(whole).cut()
        if divided is not None and divided.name == name:
            return divided
    raise InputError(
        f"network: {name!r} is not known; choose one of {', '.join(network_names())}, or name the file that "
        "registers it in the environment variable MGA_NETWORKS"
    )


def network_names() -> tuple[str, ...]:
    """Names of all networks that can be mask-guided, those of the package first."""
    return tuple(network.name for network in (*package_networks(), *users_networks()) if network.refine is not None)


def package_networks() -> Iterator[Network]:
    """All networks of the package, those too that exist whole only."""
    return map(get_network, ARCHITECTURES)


def users_networks() -> list[Network]:
    """Those from outside, by name; InputError where a file that MGA_NETWORKS names cannot be imported."""
    _import_named()
    return [_networks[name] for name in sorted(_networks)]


def known_names() -> tuple[str, ...]:
    """Names of all networks that are known without importing anything."""
    return (*ARCHITECTURES, *_networks)


def _source(network: Network) -> list[tuple[str, object]]:
    """File (or module, where there is no file) and name of each half."""
    sources: list[tuple[str, object]] = []
    for half in filter(None, (network.base, network.refine)):
        module = sys.modules.get(half.__module__)
        sources.append((getattr(module, "__file__", None) or half.__module__, getattr(half, "__qualname__", half)))
    return sources


def _import_named() -> None:
    """Import the files, folders and modules that MGA_NETWORKS names, each once."""
    for entry in filter(None, map(str.strip, os.environ.get("MGA_NETWORKS", "").split(","))):
        path = _path(entry)
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


def _path(entry: str) -> Path | None:
    """The file that an entry of MGA_NETWORKS means; None for a module. A folder is a package."""
    path = Path(entry)
    if path.is_dir() and (not entry.isidentifier() or importlib.util.find_spec(entry) is None):
        return path.resolve() / "__init__.py"
    return path.resolve() if entry.endswith(".py") else None


def _import(name: str, path: Path | None) -> None:
    if path is not None:
        _forget(name)  # what an earlier import of the folder left belongs to another package object
    _imported.add(name)  # first, so that a file that asks for the known networks does not import itself again
    if path is None:
        importlib.import_module(name)
        return
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]


def _forget(name: str) -> None:
    """So that the next question gives the same answer."""
    _imported.discard(name)
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]
