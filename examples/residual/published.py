"""Files of the residual network. Scale, width and depth are in the shapes; the mean colour is part of the code."""

from __future__ import annotations

from mga_kernels.checkpoints.spelling import Published, Reading, Spelling, State, count, renamed, shape, shuffled_scale
from mga_kernels.errors import CheckpointError

LARGE = 256  # channels with which such networks scale their residuals, by a number that no tensor tells


def _ours(state: State) -> Reading:
    rules = {r"upsample\.": "upsampler.", r"blocks\.": "body.", r"conv_after_blocks\.": "conv_after_body."}
    state = renamed(state, rules)
    values, channels = shape(state, "upsampler.0.weight")[:2]
    if channels >= LARGE:
        raise CheckpointError(f"it has {channels} channels, and how it scales what its blocks make is not known")
    scale = shuffled_scale(values, channels) ** (2 if "upsampler.2.weight" in state else 1)
    blocks = count(state, r"body\.(\d+)\.")
    return Reading("residual", "ours", state, blocks, {"channels": channels}, (scale,), ranges=("0..255",))


PUBLISHED = Published(
    (Spelling("Residual", ("conv_first.weight", "blocks.0.conv1.weight", "conv_after_blocks.weight"), _ours),)
)
