"""The published files of SPAN: as it is trained, three convolutions and a skip in place of each, or folded into one."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checkpoints.spelling import (
    Constants,
    Convolutions,
    Published,
    Reading,
    Spelling,
    State,
    check_rgb,
    count,
    shape,
    shuffled_scale,
)
from ...errors import CheckpointError
from ...networks.whole import SCALES
from .network import MEAN

IMAGENET = (0.485, 0.456, 0.406)
NO_MEAN = (0.0, 0.0, 0.0)
# What is done to the image before the first convolution, which files do not tell. The first is that of the authors; the
# last two, of which no network is known, would differ from the first two by a shift of colours alone.
KNOWN = tuple(
    Constants({"value_range": value_range, "mean": mean}, f"0..{value_range:g}")
    for value_range, mean in (
        (255.0, MEAN),
        (1.0, IMAGENET),
        (1.0, NO_MEAN),
        (255.0, NO_MEAN),
        (1.0, MEAN),
        (255.0, IMAGENET),
    )
)
UNCHANGED = KNOWN[2]
PARTS = ("sk", "conv.0", "conv.1", "conv.2", "eval_conv")  # of a layer
MARK = "no_norm"  # a tensor whose presence alone says that the image is taken as it is


def folded(state: State, layer: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 3x3 convolution that a layer is, in float64.

    As it is trained, it is ``sk`` (1x1) plus ``conv``: 1x1, 3x3, 1x1. The image is padded by zeros before the first of
    them, so that the one convolution is equal at borders, too. The one that is stored beside them may be older.
    """
    if f"{layer}.sk.weight" not in state:
        channels = shape(state, f"{layer}.eval_conv.weight")[0]
        _check(shape(state, f"{layer}.eval_conv.weight")[2:] == (3, 3), f"{layer}.eval_conv is no 3x3 convolution")
        _check(shape(state, f"{layer}.eval_conv.bias", 1) == (channels,), f"{layer}.eval_conv has another bias")
        return state[f"{layer}.eval_conv.weight"].double(), state[f"{layer}.eval_conv.bias"].double()
    sizes = {"sk": 1, "conv.0": 1, "conv.1": 3, "conv.2": 1}
    weights, biases = {}, {}
    for name, size in sizes.items():
        found = shape(state, f"{layer}.{name}.weight")
        _check(found[2:] == (size, size), f"{layer}.{name} is no {size}x{size} convolution")
        _check(shape(state, f"{layer}.{name}.bias", 1) == found[:1], f"{layer}.{name} has another bias")
        weights[name], biases[name] = state[f"{layer}.{name}.weight"].double(), state[f"{layer}.{name}.bias"].double()
    first, middle, last, skip = (weights[name] for name in ("conv.0", "conv.1", "conv.2", "sk"))
    chained = middle.shape[1] == first.shape[0] and last.shape[1] == middle.shape[0]
    _check(chained and skip.shape[:2] == (last.shape[0], first.shape[1]), f"the convolutions of {layer} do not fit")
    last = last[:, :, 0, 0]
    weight = torch.einsum("om,mnyx,ni->oiyx", last, middle, first[:, :, 0, 0])
    bias = last @ (middle.sum((2, 3)) @ biases["conv.0"] + biases["conv.1"]) + biases["conv.2"]
    weight[:, :, 1, 1] += skip[:, :, 0, 0]
    return weight, bias + biases["sk"]


def _check(fits: bool, otherwise: str) -> None:
    if not fits:
        raise CheckpointError(otherwise)


def _span(state: State) -> Reading:
    blocks = count(state, r"block_(\d+)\.")
    channels, values = shape(state, "conv_cat.weight")[0], shape(state, "upsampler.0.weight")[0]
    trained = "conv_1.sk.weight" in state
    layers = {
        f"block_{block}.c{number}_r": f"block_{block}.c{number}"
        for block in range(1, blocks + 1)
        for number in (1, 2, 3)
    }
    layers |= {"conv_1": "conv_1", "conv_2": "conv_2"}
    parts = [f"{layer}.{part}.{kind}" for layer in layers for part in PARTS for kind in ("weight", "bias")]
    taken = {MARK, *parts}  # a tensor beside these is of another network
    result = {name: tensor for name, tensor in state.items() if name not in taken}
    for layer, name in layers.items():
        result[f"{name}.weight"], result[f"{name}.bias"] = folded(state, layer)
    check_rgb(result["conv_1.weight"].shape[1])
    scale = shuffled_scale(values, 3, SCALES)
    spelling = "as it is trained" if trained else "folded"
    constants = (UNCHANGED,) if MARK in state else KNOWN
    return Reading("span", spelling, result, blocks, {"channels": channels}, (scale,), constants=constants)


def _graph(graph: Convolutions) -> Reading | None:
    """What is done to the image is part of a graph."""
    blocks, rest = divmod(len(graph.pairs) - 4, 3)
    if rest or blocks < 1 or graph.pairs[-2][0].shape[2:] != (1, 1):
        return None
    inside = [f"block_{block}.c{number}" for block in range(1, blocks + 1) for number in (1, 2, 3)]
    state = graph.named(["conv_1", *inside, "conv_2", "conv_cat", "upsampler.0"])
    value_range = graph.white - graph.black
    _check(len(value_range) == 3 and bool((value_range[:1] > 0).all()), "it does not work on RGB")
    mean = tuple((-graph.black / value_range).double().tolist())
    known = next((known for known in (MEAN, IMAGENET, NO_MEAN) if max(map(abs, _less(mean, known))) < 1e-6), mean)
    settings = {"channels": len(state["conv_1.weight"]), "value_range": round(float(value_range[0]), 3), "mean": known}
    return Reading("span", "ncnn", state, blocks, settings, (graph.scale,))


def _less(one: tuple[float, ...], other: tuple[float, ...]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


PUBLISHED = Published(
    (
        Spelling("SPAN", ("block_1.c1_r.sk.weight", "conv_cat.weight"), _span),
        Spelling("SPAN", ("block_1.c1_r.eval_conv.weight", "conv_cat.weight"), _span),
    ),
    graph=_graph,
)
