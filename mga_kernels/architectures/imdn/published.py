"""The published files of IMDN."""

from __future__ import annotations

from ...checkpoints.spelling import BOTH_RANGES, Published, Reading, Spelling, State, count, shape, shuffled_scale
from ...errors import CheckpointError


def _imdn(state: State) -> Reading:
    channels, inputs = shape(state, "fea_conv.weight")[:2]
    distilled = shape(state, "IMDB1.c4.weight")[0]
    squeezed = shape(state, "IMDB1.cca.conv_du.0.weight")[0]
    scale = shuffled_scale(shape(state, "upsampler.0.weight")[0], inputs)
    if distilled >= channels:
        raise CheckpointError(f"it keeps {distilled} of {channels} channels in each step")
    settings = {"channels": channels, "distilled": distilled, "squeezed": squeezed}
    return Reading(
        "imdn", "original", dict(state), count(state, r"IMDB(\d+)\."), settings, (scale,), ranges=BOTH_RANGES
    )


PUBLISHED = Published((Spelling("IMDN", ("fea_conv.weight", "IMDB1.c1.weight"), _imdn),))
