"""What all spellings of published networks share: how one is read from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..networks.whole import SCALES

State = Mapping[str, Tensor]
MOST = 1000  # blocks; the published networks have up to 20


@dataclass(frozen=True)
class Reading:
    """What a state dict was read as. ``state`` has the names of our network.

    ``scales``, ``colours`` and ``ranges`` are those that names and shapes leave open, more than one of each where they
    do not tell (see ``networks.whole.WholeConfig``).
    """

    network: str
    spelling: str
    state: dict[str, Tensor]
    blocks: int
    settings: dict[str, Any] = field(default_factory=dict)
    scales: tuple[int, ...] = SCALES
    colours: tuple[str, ...] = ("rgb",)
    ranges: tuple[str, ...] = ("0..1",)


@dataclass(frozen=True)
class Spelling:
    """One way to name the tensors of a network; a state dict has it that holds all of ``marks``."""

    name: str
    marks: tuple[str, ...]
    read: Callable[[State], Reading]

    def fits(self, state: State) -> bool:
        return all(mark in state for mark in self.marks)


def renamed(state: State, rules: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under new names: of each name, the first of the patterns that matches its beginning is replaced."""
    result = {}
    for name, tensor in state.items():
        rule = next((rule for rule in rules if re.match(rule, name)), None)
        result[name if rule is None else re.sub(f"^{rule}", rules[rule], name)] = tensor
    return result


def count(state: State, pattern: str) -> int:
    """How many different numbers the group of ``pattern`` finds at the beginning of the names."""
    found = len({found[1] for name in state if (found := re.match(pattern, name))})
    if found > MOST:
        raise CheckpointError(f"it has {found:,} blocks or layers of a kind, and at most {MOST} are read")
    return found


def shape(state: State, name: str, dimensions: int = 4) -> tuple[int, ...]:
    """Of a tensor that must be there with so many dimensions, none of them empty."""
    tensor = state.get(name)
    if tensor is None or tensor.ndim != dimensions or 0 in tensor.shape or not tensor.is_floating_point():
        found = "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
        raise CheckpointError(f"tensor {name} is {found}")
    return tuple(tensor.shape)


def shuffled_scale(values: int, channels: int) -> int:
    """The scale s of a pixel shuffle from ``values`` = s^2 times ``channels``."""
    scale = math.isqrt(values // channels) if channels else 0
    if scale * scale * channels != values or scale not in SCALES:
        raise CheckpointError(f"its upsampler makes {values} channels of {channels}, which is not x2, x3 or x4")
    return scale


def slope_per_channel(slope: Tensor, channels: int) -> Tensor:
    """One PReLU slope for each channel, of one for all."""
    return slope.expand(channels).clone() if slope.numel() == 1 else slope


def identity_slopes(channels: int, like: Tensor) -> Tensor:
    """Slopes with which a PReLU changes nothing."""
    return torch.ones(channels, dtype=like.dtype)
