"""Reading a graph of ncnn, a text, and its weights: bounded by what the files hold, and nothing is executed."""

from __future__ import annotations

import heapq
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError
from ...system.texts import shown
from ..kinds import is_ncnn

MAGIC = "7767517"
LARGEST_GRAPH = 4 << 20  # bytes of a .param; the largest of a published network has 0.2 MB
LARGEST_WEIGHTS = 1 << 30
MOST_LAYERS = 20_000
MOST_VALUES = 64  # of an array in a line
ARRAY = -23300  # the number of a parameter that is an array is this less its own
# How a block of weights is stored, by its first four bytes; any other number but 0 says: a table of 256 numbers.
HALF, SIGNED, PLAIN = 0x01306B47, 0x000D4B38, 0x0002C056
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")

Value = float | tuple[float, ...]


@dataclass
class Layer:
    """One line of a graph: names of what it takes and makes, and its parameters by their numbers."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, Value]
    weights: dict[str, Tensor] = field(default_factory=dict)

    def number(self, key: int, default: float = 0.0) -> float:
        value = self.settings.get(key, default)
        if isinstance(value, tuple):
            raise CheckpointError(f"parameter {key} of its layer {shown(self.name)} is an array, not a number")
        return value

    def whole(self, key: int, default: int = 0) -> int:
        value = self.number(key, default)
        if not abs(value) < 2**31 or value != int(value):
            raise CheckpointError(f"parameter {key} of its layer {shown(self.name)} is {value:g}, no whole number")
        return int(value)

    def array(self, key: int) -> tuple[float, ...]:
        value = self.settings.get(key, ())
        return value if isinstance(value, tuple) else (value,)


def param_of(path: str | os.PathLike) -> Path | None:
    """The graph that is meant by this file: itself, or the .param beside a .bin; None where it is none of ncnn."""
    path = Path(path)
    if not path.is_file():
        return None
    graph = _beside(path, ".param") if path.suffix.lower() == ".bin" else path
    return graph if is_ncnn(graph) else None


def _beside(path: Path, suffix: str) -> Path:
    """The file of the same name with ``suffix``, which may be in capitals."""
    named = [path.with_suffix(ending) for ending in (suffix, suffix.upper())]
    return next((one for one in named if one.is_file()), named[0])


class Graph:
    """Layers in an order in which each has what it takes; ``source`` takes the image, ``result`` is what is made."""

    def __init__(self, path: Path):
        layers = list(_layers(_text(path, LARGEST_GRAPH, "graph")))
        self._check_names(layers)
        weights = _beside(path, ".bin")
        if not weights.is_file():
            raise CheckpointError(f"its weights are missing: {weights.name} must lie beside it")
        reader = _Reader(weights)
        for layer in layers:  # as they come in the graph
            layer.weights = reader.weights_of(layer)
        reader.finish()
        self.layers = _ordered(layers)
        sources = [layer for layer in layers if layer.kind == "Input"]
        taken = {name for layer in layers for name in layer.inputs}
        ends = [name for layer in layers for name in layer.outputs if name not in taken]
        ends = [name for name in ends if name == "output"] or ends
        if len(sources) != 1 or len(sources[0].outputs) != 1 or len(ends) != 1:
            raise CheckpointError(f"it has {len(sources)} inputs and {len(ends)} outputs, and one of each is expected")
        self.source, self.result = sources[0].outputs[0], ends[0]

    @staticmethod
    def _check_names(layers: list[Layer]) -> None:
        made: set[str] = set()
        for layer in layers:
            twice = next((name for name in layer.outputs if name in made), None)
            if twice is not None:
                raise CheckpointError(f"two of its layers make {shown(twice)}")
            made.update(layer.outputs)
        for layer in layers:
            missing = next((name for name in layer.inputs if name not in made), None)
            if missing is not None:
                raise CheckpointError(f"its layer {shown(layer.name)} takes {shown(missing)}, which no layer makes")

    def of_kind(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind in kinds]


def _text(path: Path, largest: int, what: str) -> str:
    try:
        size = path.stat().st_size
        if size > largest:
            raise CheckpointError(f"its {what} has {size:,} bytes, more than any that is supported; refused")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from None


def _layers(text: str) -> Iterator[Layer]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    counts = lines[1].split() if len(lines) > 1 else []
    if lines[:1] != [MAGIC] or len(counts) != 2 or not all(count.isascii() and count.isdigit() for count in counts):
        raise CheckpointError(f"it does not begin with {MAGIC} and two numbers; download it again")
    rows = lines[2:]
    stated = int(counts[0][:12])
    if stated > MOST_LAYERS or len(rows) > MOST_LAYERS:
        raise CheckpointError(f"it has {max(stated, len(rows)):,} layers, and at most {MOST_LAYERS:,} are read")
    if len(rows) != stated:
        raise CheckpointError(f"it says that it has {stated} layers and has {len(rows)}, so it is cut off or changed")
    return map(_layer, rows)


def _layer(row: str) -> Layer:
    words = row.split()
    if len(words) < 4 or not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words[2:4]):
        raise CheckpointError(f'its line "{shown(row)}" is no layer')
    takes, makes = int(words[2]), int(words[3])
    names, settings = words[4 : 4 + takes + makes], words[4 + takes + makes :]
    if len(names) != takes + makes or any("=" in name and NUMBER.fullmatch(name.split("=")[0]) for name in names):
        raise CheckpointError(f'its line "{shown(row)}" has fewer names than it says')
    return Layer(words[0], words[1], tuple(names[:takes]), tuple(names[takes:]), dict(map(_setting, settings)))


def _setting(word: str) -> tuple[int, Value]:
    key, found, value = word.partition("=")
    values = value.split(",")
    if not found or not re.fullmatch(r"-?\d{1,5}", key) or not all(map(NUMBER.fullmatch, values)):
        raise CheckpointError(f'its setting "{shown(word)}" is no number')
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise CheckpointError(f'its setting "{shown(word)}" is no finite number')
    if int(key) > ARRAY:
        if len(numbers) > 1:
            raise CheckpointError(f'its setting "{shown(word)}" is no number')
        return int(key), numbers[0]
    if numbers[0] != len(numbers) - 1 or len(numbers) > MOST_VALUES:
        raise CheckpointError(f'its setting "{shown(word)}" has another number of values than it says')
    return ARRAY - int(key), numbers[1:]


def _ordered(layers: list[Layer]) -> list[Layer]:
    """Each after those that make what it takes, else as they come; CheckpointError for a loop."""
    makers = {name: index for index, layer in enumerate(layers) for name in layer.outputs}
    missing = [len(layer.inputs) for layer in layers]
    takers: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        for name in layer.inputs:
            takers.setdefault(makers[name], []).append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(layers[index])
        for taker in takers.get(index, ()):
            missing[taker] -= 1
            if not missing[taker]:
                heapq.heappush(ready, taker)
    if len(order) < len(layers):
        first = next(layer for layer, count in zip(layers, missing, strict=True) if count)
        raise CheckpointError(f"its layer {shown(first.name)} takes what comes of itself: the graph has a loop")
    return order


class _Reader:
    """The weights of layers, one after the other."""

    def __init__(self, path: Path):
        try:
            size = path.stat().st_size
            if size > LARGEST_WEIGHTS:
                raise CheckpointError(f"its weights have {size / 2**30:.1f} GiB, more than any that are supported")
            self.data = np.fromfile(path, np.uint8)
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from None
        self.name, self.position = path.name, 0

    def weights_of(self, layer: Layer) -> dict[str, Tensor]:
        if layer.kind == "Convolution":
            return self._convolution(layer)
        if layer.kind == "PReLU":
            return {"slope": self._plain(layer, layer.whole(0))}
        if layer.kind == "MemoryData":
            sides = [layer.whole(key) for key in (2, 11, 1, 0)]  # channels, depth, height, width
            if any(side < 0 for side in sides) or layer.whole(21, 1) not in (0, 1):
                raise CheckpointError(f"the constant {shown(layer.name)} in it has no shape")
            count = math.prod(side or 1 for side in sides)
            values = self._plain(layer, count) if layer.whole(21, 1) else self._stored(layer, count)
            return {"values": values.reshape([side or 1 for side in (sides[0], sides[2], sides[3])])}
        return {}

    def _convolution(self, layer: Layer) -> dict[str, Tensor]:
        outputs, width, count = layer.whole(0), layer.whole(1), layer.whole(6)
        height = layer.whole(11, width)
        area = outputs * width * height
        if min(outputs, width, height, count) < 1 or count % area:
            raise CheckpointError(
                f"its layer {shown(layer.name)} has {count:,} weights for {outputs} channels and kernels of "
                f"{width}x{height}, which does not fit"
            )
        weight = self._stored(layer, count).reshape(outputs, count // area, height, width)
        bias = self._plain(layer, outputs) if layer.whole(5) else torch.zeros(outputs, dtype=torch.float32)
        term = layer.whole(8)
        if term:  # eight bits: a scale for each channel, then those of what is computed with
            scales = self._plain(layer, outputs)
            self._plain(layer, 2 if term > 100 else 1)
            if not bool((scales != 0).all()):
                raise CheckpointError(f"the scales of its layer {shown(layer.name)} are 0")
            weight = weight / scales[:, None, None, None]
        return {"weight": weight, "bias": bias}

    def _stored(self, layer: Layer, count: int) -> Tensor:
        """Numbers that say themselves how they are stored."""
        flag = int(self._take(layer, 4).view("<u4")[0])
        if flag == HALF:
            return _finite(layer, self._take(layer, 2 * count).view("<f2")[:count])
        if flag == SIGNED:
            return _finite(layer, self._take(layer, count).view(np.int8)[:count])
        if flag in (0, PLAIN):
            return self._plain(layer, count)
        table = self._take(layer, 4 * 256).view("<f4")
        return _finite(layer, table[self._take(layer, count)[:count]])

    def _plain(self, layer: Layer, count: int) -> Tensor:
        return _finite(layer, self._take(layer, 4 * count).view("<f4"))

    def _take(self, layer: Layer, size: int) -> np.ndarray:
        """The next bytes, which are padded to a multiple of four."""
        end = self.position + -(-size // 4) * 4
        if size < 1 or end > len(self.data):
            raise CheckpointError(
                f"its weights, {self.name}, have {len(self.data):,} bytes and end within those of the layer "
                f"{shown(layer.name)}; download it again, and take care that both files are of one network"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def finish(self) -> None:
        left = len(self.data) - self.position
        if left:
            raise CheckpointError(f"its weights, {self.name}, have {left:,} bytes more than the graph takes")


def _finite(layer: Layer, values: np.ndarray) -> Tensor:
    numbers = torch.from_numpy(values.astype(np.float32))
    if not bool(numbers.isfinite().all()):
        raise CheckpointError(f"the weights of its layer {shown(layer.name)} hold NaN or infinity, so it is damaged")
    return numbers
