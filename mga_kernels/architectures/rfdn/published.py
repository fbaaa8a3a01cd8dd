"""The published files of RFDN."""

from __future__ import annotations

from ...checkpoints.spelling import (
    BOTH_RANGES,
    MaskGuidedNames,
    Published,
    Reading,
    Spelling,
    State,
    count,
    shape,
    shuffled_scale,
)


def _rfdn(state: State) -> Reading:
    channels, inputs = shape(state, "fea_conv.weight")[:2]
    scale = shuffled_scale(shape(state, "upsampler.0.weight")[0], inputs)
    blocks = count(state, r"B(\d+)\.")
    return Reading("rfdn", "original", dict(state), blocks, {"channels": channels}, (scale,), ranges=BOTH_RANGES)


PUBLISHED = Published(
    (Spelling("RFDN", ("fea_conv.weight", "B1.c1_d.weight", "B1.esa.conv1.weight"), _rfdn),),
    MaskGuidedNames(r"B(\d+)\.", base={"pool": False}),
)
