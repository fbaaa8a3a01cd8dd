"""Files of EDSR in BasicSR's names. Scale, width and depth are in the shapes; the mean colour is part of the code."""

from __future__ import annotations

from mga_kernels.checkpoints.spelling import Published, Reading, Spelling, State, count, renamed, shape, shuffled_scale
from mga_kernels.errors import CheckpointError

LARGE = 256  # channels of the other published size, which scales its residuals by 0.1: no tensor tells


def _basicsr(state: State) -> Reading:
    state = renamed(state, {r"upsample\.": "upsampler."})
    values, channels = shape(state, "upsampler.0.weight")[:2]
    if channels >= LARGE:
        raise CheckpointError(f"it has {channels} channels, and only the baseline, of 64, is known")
    scale = shuffled_scale(values, channels) ** (2 if "upsampler.2.weight" in state else 1)
    blocks = count(state, r"body\.(\d+)\.")
    return Reading("edsr", "BasicSR", state, blocks, {"channels": channels}, (scale,), ranges=("0..255",))


PUBLISHED = Published(
    (Spelling("EDSR", ("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight"), _basicsr),)
)
