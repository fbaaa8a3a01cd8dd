"""What defines a mask-guided network apart from its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from ..ops.select_patches import SELECTIONS
from ..quantities import integer, plain_fields
from .amount import Amount
from .registry import Channels, Network, get_network, network_names

PATCH_SIZES = (2, 4, 8)
SCALES = (2, 3, 4)
# By what cells are chosen: the network's mask, or for nothing by the detail of the coarse image (``ops.high_pass``).
MASKS = LEARNED, HIGH_PASS = "learned", "high-pass"
REFINED_PIXELS = 16_000  # K p^2 of the paper: K = 1000 at p = 4 (section 4.1, Table 6)


class Configuration:
    """What is asked of every configuration, as it is of a network without a mask: a cell is a pixel, none is refined.

    ``patch_size`` to ``usual_mask`` are as in ``ModelConfig``. ``masked``: whether there is a mask, by which some cells
    are refined; ``halos_shared``: whether cells that touch share what is computed around them. ``converted_bytes``: for
    each value of the picture beside those of the network, as its colours are converted. ``qualities``: thresholds by
    name, of models that have some.
    """

    patch_size: int = 1
    k: int = 0
    selection: str = "largest"
    usual_mask: str = LEARNED
    masked = False
    halos_shared = False
    converted_bytes = 4
    qualities: Mapping[str, float] = MappingProxyType({})

    @property
    def usual(self) -> Amount:
        """What is refined where nothing is asked for; ``k`` where that says nothing."""
        return Amount()

    @property
    def feature_channels(self) -> int:
        return 0

    @property
    def mask_channels(self) -> int:
        return 0

    @property
    def value_range(self) -> float:
        return 1.0


@contextmanager
def readable() -> Iterator[None]:
    """Within it, or a function decorated with it, what is wrong with a text of a configuration is an InputError."""
    try:
        yield
    except (TypeError, AttributeError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"model: not a configuration of this version: {error}") from None


@dataclass(frozen=True)
class ModelConfig(Configuration):
    """Everything that the ablations of section 4.4 vary stands here.

    ``network`` and ``scale``; ``patch_size`` p (Table 6); ``k``, patches refined per image unless a call says otherwise
    (0: the paper's 16,000 / p^2); ``split``, blocks of the Base-Net and of the Refine-Net (Table 5; empty: those of
    the paper); ``selection``, which cells are refined unless a call says otherwise (Table 7); ``usual_mask``, one of
    ``MASKS``, by what the cells of photographs are chosen unless a call says otherwise. ``base``, ``refine`` and
    ``mask`` are further keyword arguments of the three parts, as far as they are not the defaults; ``mask`` holds
    ``classes``: 1 for the 1-channel mask of Table 3.
    """

    network: str
    scale: int
    patch_size: int = 4
    k: int = 0
    split: tuple[int, ...] = ()
    selection: str = "largest"
    usual_mask: str = LEARNED
    base: dict[str, Any] = field(default_factory=dict)
    refine: dict[str, Any] = field(default_factory=dict)
    mask: dict[str, Any] = field(default_factory=dict)

    masked, converted_bytes = True, 0  # not annotated, so no fields

    def __post_init__(self) -> None:
        network = get_network(self.network)
        if network.refine is None:
            raise InputError(
                f"model: {self.network} exists whole only; choose one of {', '.join(network_names())}"
                + (f" or {divided.name}" if (divided := network.part("divided")) else "")
            )
        default = network.split
        plain_fields(self, "scale", "patch_size")
        choices = {"scale": SCALES, "patch_size": PATCH_SIZES, "selection": SELECTIONS, "usual_mask": MASKS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"model: {name} {getattr(self, name)!r} is not supported; choose one of {allowed}")
        k = integer(self.k)
        if k is None or k < 0:
            raise InputError(f"model: k must be a whole number of patches, 0 or more, got {self.k!r}")
        object.__setattr__(self, "k", k or REFINED_PIXELS // self.patch_size**2)
        split = tuple(map(integer, self.split)) or default
        if len(split) != 2 or not all(blocks is not None and blocks >= 1 for blocks in split):
            raise InputError(f"model: split must be two numbers of blocks, each 1 or more, got {self.split!r}")
        object.__setattr__(self, "split", split)
        if "blocks" in self.base or "blocks" in self.refine:
            raise InputError("model: the number of blocks is set by split, not in base or refine")

    @property
    def definition(self) -> Network:
        return get_network(self.network)

    @property
    def feature_channels(self) -> int:
        return _channels(self.definition.feature_channels, self.base)

    @property
    def mask_channels(self) -> int:
        wanted = self.definition.mask_channels
        return self.feature_channels if wanted is None else _channels(wanted, self.base)

    @property
    def value_range(self) -> float:
        return self.definition.value_range

    def to_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "range": self.value_range}, sort_keys=True)

    @classmethod
    @readable()
    def from_json(cls, text: str) -> ModelConfig:
        """Inverse of ``to_json``; InputError where the text is not a configuration that this version can run."""
        values = json.loads(text)
        value_range = values.pop("range")
        config = cls(**values)
        if value_range != config.value_range:
            raise InputError(
                f"model: made for values in 0..{value_range}, but {config.network} works in 0..{config.value_range}"
            )
        return config


def _channels(wanted: Channels, settings: dict[str, Any]) -> int:
    found = wanted(settings) if callable(wanted) else wanted
    if type(found) is not int or found < 1:
        raise InputError(f"model: a network of {found!r} channels cannot be; its settings are {settings}")
    return found
