"""The published files of SRResNet with instance normalisation: values in 0..1."""

from __future__ import annotations

from ...checkpoints.spelling import (
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


def _srresnet(state: State) -> Reading:
    settings = {"norm": "instance", "channels": shape(state, "conv_input.weight")[0]}
    state = renamed(state, {r"upscale\dx\.": "upscale."})
    values, channels = shape(state, "upscale.0.weight")[:2]
    scale = shuffled_scale(values, channels) ** (2 if "upscale.3.weight" in state else 1)
    return Reading("srresnet", "original", state, count(state, r"residual\.(\d+)\."), settings, (scale,))


PUBLISHED = Published(
    (Spelling("SRResNet", ("conv_input.weight", "residual.0.in1.weight"), _srresnet),),
    MaskGuidedNames(r"residual\.(\d+)\."),
)
