"""What all spellings of published networks share: how one is read from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError
from ..networks.config import SCALES
from ..networks.registry import Network, package_networks, users_networks
from ..networks.whole import SCALES as WHOLE_SCALES

State = Mapping[str, Tensor]
MOST = 1000  # blocks; the published networks have up to 20
EPSILON = 1e-5  # of PyTorch's normalisations
BOTH_RANGES = ("0..1", "0..255")  # of a network from a framework with a setting for it; the tensors must tell


@dataclass(frozen=True)
class Constants:
    """Settings of a network that takes 0..1 and converts it inside, and by which ``input_range`` they are asked for."""

    settings: Mapping[str, Any]
    input_range: str


@dataclass(frozen=True)
class Reading:
    """What a state dict was read as. ``state`` has the names of our network.

    ``scales``, ``colours`` and ``ranges`` are those that names and shapes leave open, more than one of each where they
    do not tell (see ``networks.whole.WholeConfig``). ``constants`` are settings that no file holds: a trial tells which
    of them a network was trained with, and the first are the usual ones. ``others`` are what the tensors may be read
    as, too: one of them is taken where a trial shows that it is right and this, the usual one, is not.
    """

    network: str
    spelling: str
    state: dict[str, Tensor]
    blocks: int
    settings: dict[str, Any] = field(default_factory=dict)
    scales: tuple[int, ...] = SCALES
    colours: tuple[str, ...] = ("rgb",)
    ranges: tuple[str, ...] = ("0..1",)
    constants: tuple[Constants, ...] = ()
    others: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Spelling:
    """One way to name the tensors of a network; a state dict has it that holds all of ``marks``.

    ``only``, the beginning of names and a pattern, is for marks that many networks have: of all names that begin so
    the rest must match.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[State], Reading]
    only: tuple[str, str] | None = None

    def fits(self, names: Collection[str], prefix: str = "") -> bool:
        """Whether these names have it behind a ``prefix``."""
        if not all(prefix + mark in names for mark in self.marks):
            return False
        if self.only is None:
            return True
        start, rest = prefix + self.only[0], re.compile(self.only[1])
        return all(rest.fullmatch(name, len(start)) for name in names if name.startswith(start))


@dataclass(frozen=True)
class Convolutions:
    """What a graph tells of its network.

    ``pairs``: weight and bias of its convolutions, in the order in which they run; ``slopes`` of what is between them,
    a tensor of PReLU or a number; ``scale``: how many times it enlarges; ``black``, ``white``: what its first
    convolution is given of such an image, a value for each channel.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    slopes: tuple[Tensor | float, ...]
    scale: int
    black: Tensor
    white: Tensor

    def named(self, names: Iterable[str], pairs: Iterable[tuple[Tensor, Tensor]] | None = None) -> dict[str, Tensor]:
        """The tensors of these convolutions, all of them by default, under these names, of which there are as many."""
        state = {}
        for name, (weight, bias) in zip(names, self.pairs if pairs is None else pairs, strict=True):
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
        return state


@dataclass(frozen=True)
class MaskGuidedNames:
    """How a network's halves look in the layout of the mask-guided paper's authors (``checkpoints.mask_guided``).

    ``blocks``: pattern of the numbers of the Refine-Net's blocks, at the beginning of names. ``base``: settings of the
    Base-Net there. ``scale`` tells the scale from the Refine-Net's tensors where those of the Base-Net leave it open.
    """

    blocks: str
    base: Mapping[str, Any] = field(default_factory=dict)
    scale: Callable[[State], int] | None = None


@dataclass(frozen=True)
class Published:
    """What files of a network look like: its ``spellings``, and its halves in the layout of the paper's authors.

    ``graph`` reads it from the convolutions of a graph (``checkpoints.ncnn``), or says by None that it is another
    network; what it reads is tried against the graph.
    """

    spellings: tuple[Spelling, ...]
    mask_guided: MaskGuidedNames | None = None
    graph: Callable[[Convolutions], Reading | None] | None = None


def published(network: Network) -> Published:
    """What is known of a network's files; nothing, where that is not said."""
    return network.part("published") or Published(())


def spellings_that(fit: Callable[[Spelling], bool]) -> list[Spelling]:
    """Those of all networks, the package's first. InputError where none fits and a file of the user's is broken."""
    found = [spelling for spelling in _spellings(package_networks()) if fit(spelling)]
    try:
        return [*found, *(spelling for spelling in _spellings(users_networks()) if fit(spelling))]
    except InputError:
        if found:
            return found
        raise


def _spellings(networks: Iterable[Network]) -> Iterator[Spelling]:
    for network in networks:
        yield from published(network).spellings


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


def check_rgb(channels: int, verb: str = "takes") -> None:
    """CheckpointError for a network of another number of channels than RGB has."""
    if channels != 3:
        raise CheckpointError(
            f"it {verb} {channels} channel{'s' if channels != 1 else ''}, and only RGB is run; a network of RGB also "
            "takes grey pictures and those with alpha"
        )


def shuffled_scale(values: int, channels: int, allowed: Collection[int] = SCALES) -> int:
    """The scale s of a pixel shuffle from ``values`` = s^2 times ``channels``."""
    scale = math.isqrt(values // channels) if channels else 0
    if scale * scale * channels != values or scale not in allowed:
        *others, last = (f"x{scale}" for scale in allowed)
        known = f"{', '.join(others)} or {last}"
        raise CheckpointError(f"its upsampler makes {values} channels of {channels}, which is not {known}")
    return scale


def stepwise_scale(state: State) -> int:
    """The scale of "upsampler.0", ".2" and so on, as ``networks.layers.stepwise_upsampler`` numbers them; 1 without."""
    if not any(name.startswith("upsampler.") for name in state):
        return 1
    values, channels = shape(state, "upsampler.0.weight")[:2]
    steps = 1
    while f"upsampler.{2 * steps}.weight" in state:
        steps += 1
    step = shuffled_scale(values, channels, (2, 3) if steps == 1 else (2,))
    if step**steps > max(WHOLE_SCALES):
        raise CheckpointError(f"it enlarges {steps} times by 2, and {max(WHOLE_SCALES)} times in all is the most")
    return int(step**steps)


def without_batch_norm(state: State, conv: str, norm: str) -> dict[str, Tensor]:
    """The tensors, of which the convolution ``conv`` does what the batch normalisation ``norm`` behind it did."""
    names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    shape(state, f"{conv}.weight")
    shapes = {shape(state, name, 1) for name in names}
    if shapes != {(len(state[f"{conv}.weight"]),)}:
        raise CheckpointError(f"the tensors of {norm} are {sorted(shapes)}, unlike the channels of {conv}")
    gain, shift, mean, variance = (state[name].double() for name in names)
    factor = gain / (variance + EPSILON).sqrt()
    bias = state.get(f"{conv}.bias", torch.zeros(1)).double()
    result = {name: t for name, t in state.items() if name not in (*names, f"{norm}.num_batches_tracked")}
    weight = state[f"{conv}.weight"].double() * factor[:, None, None, None]
    return result | {f"{conv}.weight": weight.float(), f"{conv}.bias": (shift + (bias - mean) * factor).float()}


def slope_per_channel(slope: Tensor, channels: int) -> Tensor:
    """One PReLU slope for each channel, of one for all."""
    return slope.expand(channels).clone() if slope.numel() == 1 else slope


def identity_slopes(channels: int, like: Tensor) -> Tensor:
    """Slopes with which a PReLU changes nothing."""
    return torch.ones(channels, dtype=like.dtype)
