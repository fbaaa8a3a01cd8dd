"""Programs: whole networks as layers with packed weights, kept in a file each, so that they run without PyTorch.

A file begins with FORMAT and the length of a header in JSON, which says what the program depends on and where its
arrays lie behind it. What a file says may be anything: ``read`` takes it or leaves it, and the kernels check records
and sizes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..records import LayerRecord
from ..system.files import whole_file
from .rooms import Place, Room

FORMAT = b"MGAPRG01"
ALIGNED = 64  # bytes, of the arrays in a file and in memory
LARGEST = 64 << 20  # bytes of the arrays of a program; to read larger ones takes longer than PyTorch does
_LONGEST = 1 << 20  # bytes of a header


@dataclass(frozen=True)
class Slot:
    """What layers read and write, see ``runtimes.cpu.rows.Slot``; without a ``place`` it is given with each call."""

    name: str
    scale: int
    inset: int
    place: Place | None


@dataclass(frozen=True)
class Chain:
    """Layers that run together; their numbers are those of ``slots``. ``weights`` and ``epilogues``: float32 arrays."""

    slots: tuple[Slot, ...]
    layers: tuple[LayerRecord, ...]
    weights: tuple[np.ndarray, ...]
    epilogues: tuple[np.ndarray, ...]

    @property
    def places(self) -> dict[str, Place]:
        return {slot.name: slot.place for slot in self.slots if slot.place is not None}


@dataclass(frozen=True)
class Program:
    """A whole network: its chains lead from slot "image", of channels 0..255 and one of ones, to "picture".

    ``gain``: of the picture's values to 0..1. ``planes``: channels and scale of the maps between chains. ``smallest``:
    sides in pixels that an image must have. ``gpu``: where a GPU is there, this PyTorch takes it.
    """

    scale: int
    gain: float
    smallest: int
    gpu: bool
    planes: dict[str, tuple[int, int]]
    chains: tuple[Chain, ...]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in _arrays(self))


def write(path: Path, key: Mapping[str, object], program: Program) -> None:
    """Keep ``program`` with what it depends on. InputError or OSError where that cannot be written."""
    data, shapes = bytearray(), []
    for array in _arrays(program):
        shapes.append([len(data), list(array.shape)])
        data += array.astype("<f4", copy=False).tobytes()
        data += bytes(-len(data) % ALIGNED)
    facts = {
        "key": key,
        "checksum": zlib.adler32(data),
        "arrays": shapes,
        **{name: getattr(program, name) for name in ("scale", "gain", "smallest", "gpu", "planes")},
        "chains": [
            {"slots": [_listed(slot) for slot in chain.slots], "layers": [asdict(layer) for layer in chain.layers]}
            for chain in program.chains
        ],
    }
    header = json.dumps(facts).encode()
    header += b" " * (-(len(FORMAT) + 8 + len(header)) % ALIGNED)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as stream:
        stream.write(FORMAT + struct.pack("<Q", len(header)) + header)
        stream.write(data)


def read(path: Path, key: Mapping[str, object]) -> Program | None:
    """The program of a file; None where there is none, it depends on something else or it is damaged."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(FORMAT) + 8)
            length = struct.unpack("<Q", start[len(FORMAT) :])[0]
            if start[: len(FORMAT)] != FORMAT or length > _LONGEST:
                return None
            facts = json.loads(stream.read(length))
            if facts["key"] != key:
                return None
            left = path.stat().st_size - stream.tell()
            if not 0 < left <= 2 * LARGEST:
                return None
            data = aligned(left, np.uint8)
            if stream.readinto(data.data) != left or zlib.adler32(data.data) != facts["checksum"]:
                return None
        return _program(facts, data)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error):
        return None


def aligned(count: int, dtype: type) -> np.ndarray:
    """So many zeros, the first at a multiple of ALIGNED bytes."""
    size = np.dtype(dtype).itemsize
    room: np.ndarray = np.zeros(count + ALIGNED // size, dtype)
    first = -room.ctypes.data % ALIGNED // size
    return room[first : first + count]


def _arrays(program: Program) -> Iterator[np.ndarray]:
    for chain in program.chains:
        yield from (*chain.weights, *chain.epilogues)


def _listed(slot: Slot) -> list[Any]:
    return [slot.name, slot.scale, slot.inset, slot.place]


def _program(facts: dict[str, Any], data: np.ndarray) -> Program:
    arrays = [data[at:][: 4 * int(np.prod(shape))].view("<f4").reshape(shape) for at, shape in facts["arrays"]]
    chains = []
    for chain in facts["chains"]:
        layers = tuple(LayerRecord(**layer) for layer in chain["layers"])
        weights, epilogues = (tuple(arrays.pop(0) for _ in layers) for _ in range(2))
        chains.append(Chain(tuple(_slot(*slot) for slot in chain["slots"]), layers, weights, epilogues))
    planes = {name: (channels, scale) for name, (channels, scale) in facts["planes"].items()}
    scale, gain, smallest, gpu = (facts[name] for name in ("scale", "gain", "smallest", "gpu"))
    return Program(scale, gain, smallest, gpu, planes, tuple(chains))


def _slot(name: str, scale: int, inset: int, place: list[Any] | None) -> Slot:
    if place is None:
        return Slot(name, scale, inset, None)
    shared, own, beyond = place
    return Slot(name, scale, inset, Place(Room(*shared), Room(*own), beyond))
