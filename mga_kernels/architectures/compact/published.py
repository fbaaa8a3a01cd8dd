"""The published files of SRVGGNetCompact: RGB in 0..1, with a slope of PReLU for each channel."""

from __future__ import annotations

import re

from ...checkpoints.spelling import Published, Reading, Spelling, State, shape, shuffled_scale, slope_per_channel
from ...errors import CheckpointError
from ...networks.whole import SCALES

MOST_SCALE = 4
MOST = 2000  # layers; the published networks have up to 67


def _compact(state: State) -> Reading:
    channels, inputs = shape(state, "body.0.weight")[:2]
    if inputs != 3:
        raise CheckpointError(f"it takes {inputs} channels, and only RGB is run")
    last = max(int(found[1]) for name in state if (found := re.match(r"body\.(\d{1,4})\.", name)))
    if last % 2 or last > MOST:
        raise CheckpointError(f"its last layer is number {last}, where a convolution follows up to {MOST} in pairs")
    values = shape(state, f"body.{last}.weight")[0]
    scale = shuffled_scale(values, 3, [scale for scale in SCALES if scale <= MOST_SCALE])
    result = dict(state)
    for number in range(1, last, 2):
        shape(state, f"body.{number}.weight", 1)
        result[f"body.{number}.weight"] = slope_per_channel(result[f"body.{number}.weight"], channels)
    return Reading("compact", "Real-ESRGAN", result, last // 2 - 1, {"channels": channels}, (scale,))


MARKS = ("body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight", "body.2.bias", "body.3.weight")
PUBLISHED = Published(
    (Spelling("SRVGGNetCompact", MARKS, _compact, ("body.", r"\d+\.weight|\d*[02468]\.bias")),),
)
