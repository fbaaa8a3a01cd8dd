"""Which network a graph of ncnn is: by its convolutions, and by a trial against the network that they would be of."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import CheckpointError
from ...networks.registry import package_networks, users_networks
from ...networks.whole import WholeNetwork
from ..recognise import build, supported
from ..spelling import Convolutions, Reading, published
from .graph import Graph
from .layers import compute, unknown_kinds

SIDES = 16, 12  # of the picture that both compute: multiples of all blocks of pixels that become channels
EQUAL = 1e-3  # of the largest value, by which they may differ: float32 in another order
SHOWN = 4


def load_ncnn(path: Path, name: str) -> WholeNetwork:
    """The network of a graph and of the weights beside it, fp32 on the CPU, ready to run.

    CheckpointError, beginning with ``name``, for files that do not fit, and for a graph of another network.
    """
    try:
        graph = Graph(path)
        unknown = unknown_kinds(graph)
        if unknown:
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise CheckpointError(f"its layers of the kinds {', '.join(unknown[:SHOWN])}{more} are unknown here")
        with torch.inference_mode():
            return _recognised(graph)
    except CheckpointError as error:
        raise CheckpointError(f"{name} is a graph of ncnn that cannot be run: {error}; {supported()}") from None


def _recognised(graph: Graph) -> WholeNetwork:
    found = _facts(graph)
    reasons: list[str] = []
    for network in (*package_networks(), *users_networks()):
        reader = published(network).graph
        try:
            reading = None if reader is None else reader(found)
            if reading is not None:
                return _equal(graph, reading, found.scale)
        except CheckpointError as error:
            reasons.append(f"it looks like {network.name}, but {error}")
    layers = len(graph.of_kind("Convolution"))
    raise CheckpointError("; ".join(reasons) or f"its {layers} convolutions are those of no network that is known")


def _facts(graph: Graph) -> Convolutions:
    """What a graph tells of its network."""
    shape = compute(graph, torch.empty(1, 3, *SIDES, device="meta")).shape
    scale = shape[2] // SIDES[0]
    if tuple(shape) != (1, 3, scale * SIDES[0], scale * SIDES[1]):
        raise CheckpointError(f"it makes {tuple(shape)} of an image {(1, 3, *SIDES)}, which is no such enlargement")
    layers = graph.of_kind("Convolution")
    slopes: list[torch.Tensor | float] = []
    for layer in graph.layers:
        if layer.kind == "PReLU":
            slopes.append(layer.weights["slope"])
        elif layer.kind == "ReLU":
            slopes.append(layer.number(0))
        elif layer.kind == "Convolution" and layer.whole(9) in (1, 2):
            slopes.append((*layer.array(10), 0.0)[0] if layer.whole(9) == 2 else 0.0)
    if not layers:
        raise CheckpointError("it has no convolution")
    image = torch.ones(1, 3, *SIDES, dtype=torch.float32)
    black, white = (compute(graph, grey * image, layers[0].inputs[0])[0].amax((1, 2)) for grey in (0.0, 1.0))
    pairs = tuple((layer.weights["weight"], layer.weights["bias"]) for layer in layers)
    return Convolutions(pairs, tuple(slopes), scale, black, white)


def _equal(graph: Graph, reading: Reading, scale: int) -> WholeNetwork:
    """The network of a reading, if it computes what the graph does, which enlarges so many times."""
    if reading.scales[0] != scale:
        raise CheckpointError(f"its convolutions are those of x{reading.scales[0]} and it enlarges {scale} times")
    network = build(reading, reading.scales[0]).eval().requires_grad_(False)
    image = torch.rand(1, 3, *SIDES, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    expected, found = compute(graph, image), network(image)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not difference <= EQUAL:
        raise CheckpointError(f"its graph computes something else, by {100 * difference:.3g} % of the largest value")
    return network
