"""Which of the tensors in a file are the network: what programs of training put around it is taken off.

Files differ in their dictionaries in each other, in the prefixes of names, and in what else there is: discriminators,
losses, optimisers, the same network averaged over the training (EMA). A network that is known is found by its own
names, at whatever place; the words on the way to it only decide between several.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import CheckpointError
from .normed import is_beside, names_of_parts

# Segments of names that DataParallel, torch.compile and others add around a module, at any place, and those by which a
# whole network, saved as an object, holds its parts.
AROUND = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
AROUND |= {"_modules", "_parameters", "_buffers"}
COUNTED = ("total_ops", "total_params")  # what thop leaves in every module
COUNT = "n_averaged"  # beside a module in PyTorch's AveragedModel
# Single numbers that those and others who average keep there, or a training among the tensors.
NUMBERS = frozenset({COUNT, *"decay num_updates updates initted step steps global_step iteration epoch".split()})
# Words of names, which are parted by _, - and capitals.
AVERAGED = frozenset({"ema", "swa", "averaged"})
GENERATOR = frozenset({"g", "gen", "generator", "student"})
TAKEN = frozenset({"params", "state", "dict", "weights"})
PLAIN = frozenset({"param", "sd", "model", "net", "network", "weight", "checkpoint", "ckpt", "best", "final", "sr"})
BESIDE = frozenset(
    "discriminator discriminators disc critic teacher optimizer optimizers optimiser optim opt grads gradients "
    "momentum scheduler schedulers loss losses criterion criterions criteria perceptual vgg lpips metric metrics psnr "
    "ssim old prev previous".split()
)
BESIDE_NAMES = frozenset({"d", "netd", "net_d", "netf", "net_f"})  # too short to be words
DEEPEST = 24  # dictionaries in each other; a whole network, saved as an object, has two for each of its levels
MOST = 200_000  # entries of all of them
MOST_NETWORKS = 100

State = dict[str, Tensor]
Places = Callable[[Iterable[str]], Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Part:
    """One network of a file: its place, the segments of the names before its own, and its tensors by their own."""

    place: tuple[str, ...]
    averaged: bool
    state: State

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """The least is the one to take: a network, not what trains it; the average; what is called a generator."""
        return (
            any(map(_is_beside, self.place)),
            not self.averaged,
            not any(GENERATOR & _words(segment) for segment in self.place),
        )

    def __str__(self) -> str:
        return ".".join(self.place) or "the one at the top"


def tensors_of(content: object) -> State:
    """All tensors of dictionaries in each other, by their names joined with dots. CheckpointError for too many.

    A list that has dictionaries is one of numbers.
    """
    found: State = {}
    left = MOST
    level: list[tuple[str, object, tuple[int, ...]]] = [("", content, ())]
    for _ in range(DEEPEST):
        below: list[tuple[str, object, tuple[int, ...]]] = []
        for place, holder, above in level:
            entries = _entries(holder)
            left -= len(entries)
            if left < 0:
                raise CheckpointError(f"it has more than {MOST:,} entries")
            above = (*above, id(holder))  # objects of a program may hold what holds them
            for key, value in entries.items():
                if not isinstance(key, str | int):
                    continue
                if isinstance(value, Tensor):
                    found[f"{place}{key}"] = value
                elif isinstance(value, Mapping | list | tuple) and id(value) not in above:
                    below.append((f"{place}{key}.", value, above))
        level = below
    return found


def _entries(value: object) -> Mapping:
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else {}


def find_networks(tensors: State, places: Places) -> list[Part]:
    """The networks in these tensors that are known, without what lies beside them.

    ``places`` finds, among names, the prefixes behind which such a network begins, each with the prefixes in it behind
    which another one would seem to begin. CheckpointError for more networks than a file of one can have.
    """
    plain = _plain_names(tensors)
    parts_of = names_of_parts(plain)
    plain = {parts_of.get(name, name): original for name, original in plain.items()}
    found = places([name for name in plain if not is_beside(name)] if parts_of else plain)
    if len(found) > MOST_NETWORKS:
        raise CheckpointError(f"it has {len(found):,} networks in it")
    inner = {prefix + part for prefix, parts in found.items() for part in parts}
    # The longest first, so that a tensor belongs to the innermost network.
    prefixes = sorted(set(found) - inner, key=len, reverse=True)
    states: dict[str, State] = {prefix: {} for prefix in prefixes}
    origin: dict[str, str] = {}
    for name, original in plain.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            continue
        own = name.removeprefix(prefix)
        start = own.partition(".")[0]
        number = own in NUMBERS and tensors[original].numel() == 1
        if not number and not _is_beside(start) and not AVERAGED & _words(start):
            states[prefix][own] = tensors[original]
            origin[prefix] = original
    counted = {_around(name.split(".")[:-1]) for name in tensors if name.rpartition(".")[2] == COUNT}
    parts = []
    for prefix in origin:  # as they come in the file
        place = _place(origin[prefix], prefix)
        averaged = any(AVERAGED & _words(segment) for segment in place) or _around(place) in counted
        parts.append(Part(place, averaged, states[prefix]))
    return parts


def best(parts: list[Part]) -> list[Part]:
    """Those of the least rank."""
    least = min(part.rank for part in parts)
    return [part for part in parts if part.rank == least]


def guess(tensors: State) -> State:
    """What seems to be the network, of a file in which none is known, by the words on the way to it; or nothing."""
    names = _plain_names(tensors)
    for _ in range(DEEPEST):
        starts = Counter(name.partition(".")[0] for name in names if "." in name)
        kept = {start: number for start, number in starts.items() if not _is_beside(start)}
        around = {start: number for start, number in kept.items() if _words(start) & (TAKEN | GENERATOR | AVERAGED)}
        if not around and len(kept) == 1:  # else "net" may be one part of the network among others
            around = {start: number for start, number in kept.items() if _words(start) <= PLAIN}
        if not around:
            break
        start = min(around, key=lambda s: (not AVERAGED & _words(s), not GENERATOR & _words(s), -around[s]))
        names = {name.removeprefix(f"{start}."): names[name] for name in names if name.startswith(f"{start}.")}
    return {name: tensors[original] for name, original in names.items() if not _is_beside(name.partition(".")[0])}


def _plain_names(tensors: Iterable[str]) -> dict[str, str]:
    """Names without what is put around modules -> names as they are. Where two would be one, both stay as they are."""
    names = [name for name in tensors if name.rpartition(".")[2] not in COUNTED]
    short = {name: ".".join(_without_around(name.split("."))) for name in names}
    uses = Counter(short.values())
    return {short[name] if uses[short[name]] == 1 else name: name for name in names}


def _without_around(segments: Iterable[str]) -> list[str]:
    return [segment for segment in segments if segment not in AROUND]


def _around(place: Iterable[str]) -> tuple[str, ...]:
    return tuple(_without_around(place))


def _place(original: str, prefix: str) -> tuple[str, ...]:
    """The segments of a name that are before the network's own, with those that are put around modules."""
    segments = original.split(".")
    if original.startswith(prefix) and any(segment in AROUND for segment in prefix.split(".")):
        return tuple(prefix.split(".")[:-1])  # nothing was taken off
    wanted, place = prefix.split(".")[:-1], []
    for segment in segments:
        if segment not in AROUND:
            if not wanted:
                break
            wanted = wanted[1:]
        place.append(segment)
    return tuple(place)


def _words(segment: str) -> frozenset[str]:
    """ "netG_ema" -> net, g, ema."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", segment))


def _is_beside(segment: str) -> bool:
    return segment.lower() in BESIDE_NAMES or bool(BESIDE & _words(segment))
