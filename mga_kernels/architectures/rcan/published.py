"""The published files of RCAN. It carries its mean colour, or is that of BasicSR, which works on 0..255 inside."""

from __future__ import annotations

import math

from ...checkpoints.mean_shift import has_shift, mean_shift, with_other_means, without_shift
from ...checkpoints.spelling import (
    MaskGuidedNames,
    Published,
    Reading,
    Spelling,
    State,
    count,
    renamed,
    shape,
    stepwise_scale,
)
from ...errors import CheckpointError
from .network import MEAN


def _rcan(state: State, spelling: str, mean: tuple[float, ...], ranges: tuple[str, ...]) -> Reading:
    """Of tensors with our names."""
    groups, blocks = count(state, r"body\.(\d+)\.residual_group\."), count(state, r"body\.0\.residual_group\.(\d+)\.")
    scale, channels = stepwise_scale(state), shape(state, "conv_first.weight")[0]
    squeezed = shape(state, "body.0.residual_group.0.rcab.3.attention.1.weight")[0]
    settings = {"blocks_per_group": blocks, "channels": channels, "squeezed": squeezed, "mean": mean}
    inputs = shape(state, "conv_first.weight")[1]
    side = math.isqrt(inputs // 3)
    if side > 1 and (3 * side * side != inputs or scale % side):
        raise CheckpointError(f"it takes {inputs} channels and enlarges {scale} times, which is no network of RGB")
    if side > 1:
        scale, settings = scale // side, {**settings, "unshuffled": side}
    return Reading("rcan", spelling, dict(state), groups, settings, (scale,), ranges=ranges)


def _rcan_original(state: State) -> Reading:
    mean, ranges = mean_shift(state)
    groups = count(state, r"body\.(\d+)\.body\.")
    rules = {
        r"head\.[01]\.": "conv_first.",  # behind a pixel unshuffle it is the second
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
    reading = _rcan(renamed(without_shift(state), rules), "original (EDSR framework)", mean, ranges)
    return with_other_means(reading, MEAN, has_shift(state))


def _rcan_basicsr(state: State) -> Reading:
    rules = {r"upsample\.": "upsampler."}
    # The mean colour is no tensor; that of DIV2K is what the code has.
    return with_other_means(_rcan(renamed(state, rules), "BasicSR", MEAN, ("0..255",)), MEAN)


PUBLISHED = Published(
    (
        Spelling("RCAN", ("head.0.weight", "body.0.body.0.body.0.weight", "tail.1.weight"), _rcan_original),
        Spelling("RCAN", ("head.1.weight", "body.0.body.0.body.0.weight", "tail.1.weight"), _rcan_original),
        Spelling("RCAN", ("conv_first.weight", "body.0.residual_group.0.rcab.0.weight"), _rcan_basicsr),
    ),
    MaskGuidedNames(r"body\.(\d+)\."),
)
