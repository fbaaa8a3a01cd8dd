"""What the layers of a graph compute, in PyTorch, as far as networks consist of them that are known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import CheckpointError
from ...system.texts import shown
from .graph import Graph, Layer

MOST_VALUES = 1 << 24  # of one result
LARGEST_STEP = 16  # by which one layer enlarges
MODES = {1: "nearest", 2: "bilinear", 3: "bicubic"}


def _activated(layer: Layer, x: Tensor) -> Tensor:
    """The activation that is part of a convolution."""
    kind, values = layer.whole(9), layer.array(10)
    if kind == 0:
        return x
    if kind == 1:
        return F.relu(x)
    if kind == 2 and len(values) == 1:
        return F.leaky_relu(x, values[0])
    if kind == 4:
        return torch.sigmoid(x)
    raise CheckpointError(f"the activation {kind} of its layer {shown(layer.name)} is unknown here")


def _convolution(layer: Layer, x: Tensor) -> Tensor:
    left, strides = layer.whole(4), (layer.whole(13, layer.whole(3, 1)), layer.whole(3, 1))
    top = layer.whole(14, left)
    sides = (left, layer.whole(15, left), top, layer.whole(16, top))
    weight = layer.weights["weight"]
    plain = strides == (1, 1) and layer.whole(2, 1) == layer.whole(12, 1) == 1 and not layer.number(18)
    same = sides == (weight.shape[3] // 2,) * 2 + (weight.shape[2] // 2,) * 2
    if not plain or not same or layer.whole(19) or x.shape[1] != weight.shape[1]:
        raise CheckpointError(
            f"its layer {shown(layer.name)} is no convolution of {x.shape[1]} channels that keeps the size"
        )
    weight, bias = (layer.weights[name].to(x.device) for name in ("weight", "bias"))
    return _activated(layer, F.conv2d(F.pad(x, sides), weight, bias))


def _prelu(layer: Layer, x: Tensor) -> Tensor:
    slope = layer.weights["slope"].to(x.device)
    if len(slope) not in (1, x.shape[1]):
        raise CheckpointError(f"its layer {shown(layer.name)} has {len(slope)} slopes for {x.shape[1]} channels")
    return F.prelu(x, slope)


OPERATIONS: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    0: torch.add,
    1: torch.sub,
    2: torch.mul,
    3: torch.div,
    4: torch.maximum,
    5: torch.minimum,
    7: lambda a, b: b - a,
    8: lambda a, b: b / a,
}


def _binary(layer: Layer, x: Tensor, *others: Tensor) -> Tensor:
    operation = OPERATIONS.get(layer.whole(0))
    scalar = bool(layer.whole(1))
    if operation is None or len(others) != (0 if scalar else 1):
        raise CheckpointError(f"the operation {layer.whole(0)} of its layer {shown(layer.name)} is unknown here")
    return operation(x, torch.full((), layer.number(2), device=x.device) if scalar else others[0])


def _eltwise(layer: Layer, *tensors: Tensor) -> Tensor:
    kind, factors = layer.whole(0), layer.array(1)
    if kind == 0:
        return torch.stack(tensors).prod(0)
    if kind == 2:
        return torch.stack(tensors).amax(0)
    if kind != 1 or len(factors) not in (0, len(tensors)):
        raise CheckpointError(f"the operation {kind} of its layer {shown(layer.name)} is unknown here")
    parts = [tensor * factor for tensor, factor in zip(tensors, factors or [1.0] * len(tensors), strict=True)]
    return torch.stack(parts).sum(0)


def _interp(layer: Layer, x: Tensor, *others: Tensor) -> Tensor:
    mode, scales = MODES.get(layer.whole(0)), (layer.number(1, 1.0), layer.number(2, 1.0))
    odd = others or layer.whole(3) or layer.whole(4) or layer.whole(6)
    if mode is None or odd or scales[0] != scales[1] or not 0 < scales[0] <= LARGEST_STEP:
        raise CheckpointError(f"its layer {shown(layer.name)} does not enlarge by a number that is the same both ways")
    return F.interpolate(x, scale_factor=scales[0], mode=mode)


def _shuffle(layer: Layer, x: Tensor) -> Tensor:
    step = layer.whole(0, 1)
    if not 1 <= step <= LARGEST_STEP or layer.whole(1) or x.shape[1] % step**2:
        raise CheckpointError(f"its layer {shown(layer.name)} is no pixel shuffle of {x.shape[1]} channels")
    return F.pixel_shuffle(x, step)


def _reorg(layer: Layer, x: Tensor) -> Tensor:
    step = layer.whole(0, 1)
    if not 1 <= step <= LARGEST_STEP or layer.whole(1) or x.shape[2] % step or x.shape[3] % step:
        raise CheckpointError(f"its layer {shown(layer.name)} does not make channels of blocks of pixels")
    return F.pixel_unshuffle(x, step)


def _concat(layer: Layer, *tensors: Tensor) -> Tensor:
    if layer.whole(0) not in (0, -3):
        raise CheckpointError(f"its layer {shown(layer.name)} joins other things than channels")
    return torch.cat(tensors, dim=1)


COMPUTED: dict[str, Callable[..., Tensor]] = {
    "Convolution": _convolution,
    "PReLU": _prelu,
    "ReLU": lambda layer, x: F.leaky_relu(x, layer.number(0)),
    "Swish": lambda layer, x: F.silu(x),
    "Sigmoid": lambda layer, x: torch.sigmoid(x),
    "BinaryOp": _binary,
    "Eltwise": _eltwise,
    "Interp": _interp,
    "PixelShuffle": _shuffle,
    "Reorg": _reorg,
    "Concat": _concat,
    "Dropout": lambda layer, x: x * layer.number(0, 1.0),
    "Noop": lambda layer, x: x,
}
OTHERS = ("Input", "Split", "MemoryData")


def unknown_kinds(graph: Graph) -> list[str]:
    """Kinds of layers that are not among those above, the most frequent first."""
    found = Counter(layer.kind for layer in graph.layers if layer.kind not in (*COMPUTED, *OTHERS))
    return [shown(kind) for kind, _ in found.most_common()]


def compute(graph: Graph, image: Tensor, wanted: str | None = None) -> Tensor:
    """What the graph makes of ``image`` (1, 3, H, W), or the result of the name ``wanted`` in it.

    On the meta device it costs nothing. CheckpointError for a layer that cannot do what it is asked for.
    """
    uses = Counter(name for layer in graph.layers for name in layer.inputs)
    known = {graph.source: image}
    for layer in graph.layers:
        taken = [known[name] for name in layer.inputs]
        made = _outputs(layer, taken, image)
        for name, result in made.items():
            if result.numel() > MOST_VALUES:
                raise CheckpointError(f"its layer {shown(layer.name)} makes {result.numel():,} values; refused")
            known[name] = result
        if wanted in made:
            return made[wanted]
        for name in layer.inputs:
            uses[name] -= 1
            if not uses[name]:
                del known[name]
    return known[graph.result]


def _outputs(layer: Layer, taken: list[Tensor], image: Tensor) -> dict[str, Tensor]:
    if layer.kind == "Input":
        return {}
    if layer.kind == "Split" and len(taken) == 1:
        return dict.fromkeys(layer.outputs, taken[0])
    if layer.kind == "MemoryData" and len(layer.outputs) == 1:
        values = layer.weights["values"].to(image.device)
        return {layer.outputs[0]: values.reshape(-1, 1, 1)[None] if values.shape[:2] == (1, 1) else values[None]}
    if len(layer.outputs) != 1 or not taken or layer.kind in OTHERS:
        raise CheckpointError(f"its layer {shown(layer.name)} has another number of inputs or outputs than its kind")
    try:
        return {layer.outputs[0]: COMPUTED[layer.kind](layer, *taken)}
    except CheckpointError:  # which says all already
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"its layer {shown(layer.name)} cannot be computed: {reason}") from None
