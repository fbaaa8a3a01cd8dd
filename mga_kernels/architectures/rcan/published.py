"""The published files of RCAN. It carries its mean colour, or is that of BasicSR, which works on 0..255 inside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...checkpoints.spelling import (
    BOTH_RANGES,
    MaskGuidedNames,
    Published,
    Reading,
    Spelling,
    State,
    count,
    renamed,
    shape,
    shuffled_scale,
)
from ...errors import CheckpointError
from .network import MEAN

COLOUR_SHIFT = 1e-3  # by which the matrix of a mean shift may differ from that of identity


def _rcan(state: State, spelling: str, mean: tuple[float, ...], ranges: tuple[str, ...]) -> Reading:
    """Of tensors with our names."""
    groups, blocks = count(state, r"body\.(\d+)\.residual_group\."), count(state, r"body\.0\.residual_group\.(\d+)\.")
    values, channels = shape(state, "upsampler.0.weight")[:2]
    scale = shuffled_scale(values, channels) ** (2 if "upsampler.2.weight" in state else 1)
    squeezed = shape(state, "body.0.residual_group.0.rcab.3.attention.1.weight")[0]
    settings = {"blocks_per_group": blocks, "channels": channels, "squeezed": squeezed, "mean": mean}
    return Reading("rcan", spelling, dict(state), groups, settings, (scale,), ranges=ranges)


def _rcan_original(state: State) -> Reading:
    mean, ranges = _mean_shift(state)
    groups = count(state, r"body\.(\d+)\.body\.")
    rules = {
        r"head\.0\.": "conv_first.",
        rf"body\.{groups}\.": "conv_after_body.",
        r"tail\.0\.": "upsampler.",
        r"tail\.1\.": "conv_last.",
    }
    for name in state:  # the convolution that closes a group comes after its blocks
        if name.startswith("body.0.body.") and name.count(".") == 4:
            rules[rf"body\.(\d+)\.{name.removeprefix('body.0.').rsplit('.', 1)[0]}\."] = r"body.\1.conv."
    rules |= {
        r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0\.": r"body.\1.residual_group.\2.rcab.3.attention.1.",
        r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2\.": r"body.\1.residual_group.\2.rcab.3.attention.3.",
        r"body\.(\d+)\.body\.(\d+)\.body\.": r"body.\1.residual_group.\2.rcab.",
    }
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(("sub_mean.", "add_mean."))}
    return _rcan(renamed(kept, rules), "original (EDSR framework)", mean, ranges)


def _mean_shift(state: State) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The mean colour that is taken off and added, and the range that its size tells; none and both without one."""
    if "sub_mean.weight" not in state:
        return (0.0, 0.0, 0.0), BOTH_RANGES
    shifts: list[Tensor] = []
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        matrix = shape(state, f"{name}.weight")
        if matrix != (3, 3, 1, 1) or shape(state, f"{name}.bias", 1) != (3,):
            raise CheckpointError(f"tensor {name}.weight is {matrix}, and a mean shift has (3, 3, 1, 1)")
        if (state[f"{name}.weight"][:, :, 0, 0].float() - torch.eye(3, dtype=torch.float32)).abs().max() > COLOUR_SHIFT:
            raise CheckpointError(f"{name} changes more than the mean colour")
        shifts.append(sign * state[f"{name}.bias"].double())
    mean = shifts[0].tolist()
    if not torch.allclose(shifts[0], shifts[1], rtol=1e-3, atol=1e-3):
        raise CheckpointError("the mean that it takes off is not the one that it adds")
    return tuple(mean), ("0..1" if max(map(math.fabs, mean)) <= 1 else "0..255",)


def _rcan_basicsr(state: State) -> Reading:
    rules = {r"upsample\.": "upsampler."}
    # The mean colour is no tensor; that of DIV2K is what the code has.
    return _rcan(renamed(state, rules), "BasicSR", MEAN, ("0..255",))


PUBLISHED = Published(
    (
        Spelling("RCAN", ("head.0.weight", "body.0.body.0.body.0.weight", "tail.1.weight"), _rcan_original),
        Spelling("RCAN", ("conv_first.weight", "body.0.residual_group.0.rcab.0.weight"), _rcan_basicsr),
    ),
    MaskGuidedNames(r"body\.(\d+)\."),
)
