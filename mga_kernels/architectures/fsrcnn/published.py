"""The published files of FSRCNN.

All become the form of our network: a PReLU after each mapping layer, a slope for each channel. A PReLU of slope
1 is none. The transposed convolution has the same shape at every scale, so the scale is never in the shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...checkpoints.spelling import (
    MaskGuidedNames,
    Published,
    Reading,
    Spelling,
    State,
    count,
    identity_slopes,
    renamed,
    shape,
    slope_per_channel,
)
from ...errors import CheckpointError
from ...networks.config import SCALES

RANGES = ("0..1", "0..255")
LUMA_RANGES = (*RANGES, "16..235")


def _classic(state: State) -> Reading:
    """first_part, mid_part with the expansion at its end, last_part: luma in most places, of either range."""
    last = count(state, r"mid_part\.(\d+)\.weight")  # convolutions and PReLUs, of which the last two are the expansion
    moved = {
        f"mid_part.{last - 2}.": "last_part.0.",
        f"mid_part.{last - 1}.": "last_part.1.",
        "last_part.": "last_part.2.",
    }
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        start = next((start for start in moved if name.startswith(start)), None)
        result[name if start is None else moved[start] + name.removeprefix(start)] = tensor
    return _reading("classic", result, (last - 4) // 2, state, "last_part.weight")


def _ours(state: State) -> Reading:
    """The same with the expansion in last_part: the mask-guided paper's, which is RGB."""
    blocks = (count(state, r"mid_part\.(\d+)\.weight") - 2) // 2
    return _reading("mask-guided", dict(state), blocks, state, "last_part.2.weight", colours=("rgb",))


def _parts(state: State) -> Reading:
    """feature_extraction, shrink, map, expand, deconv: as the classic one, each with its PReLUs."""
    blocks = count(state, r"map\.(\d+)\.weight") // 2
    rules = {r"feature_extraction\.": "first_part.", r"shrink\.": "mid_part.", r"expand\.": "last_part."}
    rules |= {rf"map\.{layer}\.": f"mid_part.{2 + layer}." for layer in range(2 * blocks)}
    result = renamed(state, {**rules, r"deconv\.": "last_part.2."})
    return _reading("parts", result, blocks, state, "deconv.weight")


def _classsr(state: State) -> Reading:
    """head_conv, body_conv, tail_conv: one PReLU after all maps, one slope in each; x4, shifted by a pixel."""
    maps = count(state, r"body_conv\.(\d+)\.weight") - 5
    names = {
        "head_conv.0": "first_part.0",
        "head_conv.1": "first_part.1",
        "body_conv.0": "mid_part.0",
        "body_conv.1": "mid_part.1",
        f"body_conv.{3 + maps}": "last_part.0",
        f"body_conv.{4 + maps}": "last_part.1",
        "tail_conv": "last_part.2",
    }
    result = _one_activation(state, names, [f"body_conv.{2 + i}" for i in range(maps)], f"body_conv.{2 + maps}")
    settings = {"padding": 3}
    return _reading("ClassSR", result, maps, state, "tail_conv.weight", settings, scales=(4,), colours=("rgb",))


def _named(state: State) -> Reading:
    """feature_extract, shrink, map_N, expand, deconv: one PReLU after all maps; all planes of YCbCr, clipped."""
    maps = count(state, r"map_(\d+)\.weight")
    names = {
        "feature_extract": "first_part.0",
        "activation_1": "first_part.1",
        "shrink": "mid_part.0",
        "activation_2": "mid_part.1",
        "expand": "last_part.0",
        "activation_4": "last_part.1",
        "deconv": "last_part.2",
    }
    result = _one_activation(state, names, [f"map_{1 + i}" for i in range(maps)], "activation_3")
    return _reading("feature_extract", result, maps, state, "deconv.weight", colours=("ycbcr",), ranges=("clipped",))


def _one_activation(state: State, names: dict[str, str], maps: list[str], activation: str) -> dict[str, Tensor]:
    """Our names for a network with a PReLU after its last mapping layer only."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if module in maps:
            result[f"mid_part.{2 + 2 * maps.index(module)}.{kind}"] = tensor
        elif module == activation:
            result[f"mid_part.{1 + 2 * len(maps)}.{kind}"] = tensor
        else:
            result[f"{names.get(module, module)}.{kind}"] = tensor
    for i in range(len(maps) - 1):
        weight = state[f"{maps[i]}.weight"]
        result[f"mid_part.{3 + 2 * i}.weight"] = identity_slopes(len(weight), weight)
    return result


def _reading(
    spelling: str,
    result: dict[str, Tensor],
    blocks: int,
    state: State,
    deconvolution: str,
    settings: dict[str, int] | None = None,
    scales: tuple[int, ...] = SCALES,
    colours: tuple[str, ...] = ("rgb", "ycbcr"),
    ranges: tuple[str, ...] = RANGES,
) -> Reading:
    expanded, planes, *size = shape(state, deconvolution)
    shrunk = shape(result, "mid_part.0.weight")[0]
    if tuple(size) != (9, 9) or planes not in (1, 3) or blocks < 1:
        raise CheckpointError(
            f"its last layer has {planes} planes and a kernel of {size[0]}x{size[1]} behind {blocks} mapping layers, "
            "and FSRCNN has 1 or 3 planes, 9x9 and at least one mapping layer"
        )
    for name, channels in _slopes(blocks, expanded, shrunk).items():
        if name in result:
            result[name] = slope_per_channel(result[name], channels)
    if planes == 1:
        colours, ranges = ("y",), LUMA_RANGES
        sub_pixel = _sub_pixel(state[deconvolution])
        if sub_pixel is not None:  # a convolution and depth-to-space, which exists for luma of the full range
            spelling, scales, ranges = "sub-pixel", (sub_pixel,), ("0..1",)
    facts = {"expanded": expanded, "shrunk": shrunk, "colours": planes} | (settings or {})
    return Reading("fsrcnn", spelling, result, blocks, facts, scales, colours, ranges)


def _slopes(blocks: int, expanded: int, shrunk: int) -> dict[str, int]:
    """Names of the PReLUs, with their channels."""
    maps = {f"mid_part.{1 + 2 * i}.weight": shrunk for i in range(blocks + 1)}
    return {"first_part.1.weight": expanded, **maps, "last_part.1.weight": expanded}


def _sub_pixel(kernel: Tensor) -> int | None:
    """The scale s of a kernel (C, 1, 9, 9) that is zero but for s x s taps from (4, 4) on, so that nothing overlaps."""
    used = kernel.abs().amax(dim=(0, 1)) > 0
    for scale in SCALES:
        inside = torch.zeros_like(used)
        inside[4 : 4 + scale, 4 : 4 + scale] = True
        if bool(used[inside].all()) and not bool(used[~inside].any()):
            return scale
    return None


PUBLISHED = Published(
    (
        Spelling("FSRCNN", ("first_part.0.weight", "mid_part.0.weight", "last_part.weight"), _classic),
        Spelling("FSRCNN", ("first_part.0.weight", "mid_part.0.weight", "last_part.2.weight"), _ours),
        Spelling("FSRCNN", ("feature_extraction.0.weight", "map.0.weight", "deconv.weight"), _parts),
        Spelling("FSRCNN", ("head_conv.0.weight", "body_conv.0.weight", "tail_conv.weight"), _classsr),
        Spelling("FSRCNN", ("feature_extract.weight", "map_1.weight", "deconv.weight"), _named),
    ),
    MaskGuidedNames(r"mid_part\.(\d*[02468])\."),  # a convolution and a PReLU each
)
