"""The published files of the simplified IMDN: KAIR's, whose tensors are called by their places in nested sequences."""

from __future__ import annotations

from ...checkpoints.spelling import (
    Published,
    Reading,
    Spelling,
    State,
    check_rgb,
    count,
    renamed,
    shape,
    shuffled_scale,
)
from ...errors import CheckpointError


def _kair(state: State) -> Reading:
    blocks = count(state, r"model\.1\.sub\.(\d+)\.conv1\.0\.")
    rules = {
        r"model\.0\.": "conv_first.",
        r"model\.1\.sub\.(\d+)\.conv1x1\.": r"body.\1.c5.",
        r"model\.1\.sub\.(\d+)\.conv4\.": r"body.\1.c4.",
        r"model\.1\.sub\.(\d+)\.conv(\d)\.0\.": r"body.\1.c\2.",
        rf"model\.1\.sub\.{blocks}\.": "conv_after_body.",
        r"model\.2\.": "upsampler.0.",
    }
    channels, inputs = shape(state, "model.0.weight")[:2]
    check_rgb(inputs)
    distilled = shape(state, "model.1.sub.0.conv4.weight")[0]
    if distilled >= channels:
        raise CheckpointError(f"it keeps {distilled} of {channels} channels in each step")
    scale = shuffled_scale(shape(state, "model.2.weight")[0], 3)
    settings = {"channels": channels, "distilled": distilled}
    return Reading("simplified_imdn", "KAIR", renamed(state, rules), blocks, settings, (scale,))


MARKS = ("model.0.weight", "model.1.sub.0.conv1.0.weight", "model.1.sub.0.conv1x1.weight", "model.2.weight")
PUBLISHED = Published((Spelling("IMDN", MARKS, _kair),))
