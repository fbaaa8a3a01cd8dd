"""The published files of SRVGGNetCompact: RGB in 0..1, with a slope of PReLU for each channel."""

from __future__ import annotations

import dataclasses
import re

import torch

from ...checkpoints.spelling import (
    Convolutions,
    Published,
    Reading,
    Spelling,
    State,
    check_rgb,
    shape,
    shuffled_scale,
    slope_per_channel,
)
from ...errors import CheckpointError
from ...networks.whole import SCALES

MOST = 2000  # layers; the published networks have up to 67


def _compact(state: State) -> Reading:
    channels, inputs = shape(state, "body.0.weight")[:2]
    check_rgb(inputs)
    last = max(int(found[1]) for name in state if (found := re.match(r"body\.(\d{1,4})\.", name)))
    if last % 2 or last > MOST:
        raise CheckpointError(f"its last layer is number {last}, where a convolution follows up to {MOST} in pairs")
    values = shape(state, f"body.{last}.weight")[0]
    scale = shuffled_scale(values, 3, SCALES)
    result = dict(state)
    for number in range(1, last, 2):
        shape(state, f"body.{number}.weight", 1)
        result[f"body.{number}.weight"] = slope_per_channel(result[f"body.{number}.weight"], channels)
    return Reading("compact", "Real-ESRGAN", result, last // 2 - 1, {"channels": channels}, (scale,))


def _graph(graph: Convolutions) -> Reading | None:
    """A graph may shrink the result, and have other activations, which are PReLUs with the same slope everywhere."""
    count = len(graph.pairs)
    if count < 3 or len(graph.slopes) != count - 1:
        return None
    state = graph.named(f"body.{2 * number}" for number in range(count))
    channels = len(graph.pairs[0][0])
    for number, slope in enumerate(graph.slopes):
        state[f"body.{2 * number + 1}.weight"] = torch.as_tensor(slope, dtype=torch.float32).expand(channels).clone()
    reading = _compact(state)
    if reading.scales == (graph.scale,):
        return reading
    settings = {**reading.settings, "enlarged": reading.scales[0]}
    return dataclasses.replace(reading, scales=(graph.scale,), settings=settings)


MARKS = ("body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight", "body.2.bias", "body.3.weight")
PUBLISHED = Published(
    (Spelling("SRVGGNetCompact", MARKS, _compact, ("body.", r"\d+\.weight|\d*[02468]\.bias")),), graph=_graph
)
