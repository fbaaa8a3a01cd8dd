"""The published files of PAN: values in 0..1."""

from __future__ import annotations

from ...checkpoints.spelling import MaskGuidedNames, Published, Reading, Spelling, State, count, shape


def _pan(state: State) -> Reading:
    channels = shape(state, "upconv1.weight")[0]
    settings = {"features": shape(state, "conv_first.weight")[0], "channels": channels}
    # One step of x2 and one of x3 have the same tensors: nearest neighbours have no weights.
    scales = (4,) if "upconv2.weight" in state else (2, 3)
    return Reading("pan", "original", dict(state), count(state, r"SCPA_trunk\.(\d+)\."), settings, scales)


def _refine_scale(refine: State) -> int:
    """The Refine-Net of x3 has one layer more than that of x2."""
    return 3 if "HRconv_extra.weight" in refine else 2


PUBLISHED = Published(
    (Spelling("PAN", ("SCPA_trunk.0.conv1_a.weight", "conv_first.weight"), _pan),),
    MaskGuidedNames(r"SCPA_trunk\.(\d+)\.", scale=_refine_scale),
)
