"""The published files of SRResNet: values in 0..1, with instance normalisation or, folded here, batch normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

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
    slope_per_channel,
    without_batch_norm,
)

MOST_STEPS = 4  # to x16
ORIGINAL = {r"upscale\dx\.": "upscale.", r"residual\.(\d+)\.bn(\d)\.": r"residual.\1.in\2."}
NUMBERED = {  # conv1, conv2, conv3 or conv_block1 and so on
    r"conv(_block)?1\.0\.": "conv_input.",
    r"conv(_block)?1\.1\.": "relu.",
    r"trunk\.(\d+)\.rcb\.0\.": r"residual.\1.conv1.",
    r"trunk\.(\d+)\.rcb\.1\.": r"residual.\1.in1.",
    r"trunk\.(\d+)\.rcb\.2\.": r"residual.\1.relu.",
    r"trunk\.(\d+)\.rcb\.3\.": r"residual.\1.conv2.",
    r"trunk\.(\d+)\.rcb\.4\.": r"residual.\1.in2.",
    r"conv(_block)?2\.0\.": "conv_mid.",
    r"conv(_block)?2\.1\.": "bn_mid.",
    r"conv(_block)?3\.": "conv_output.",
    **{
        rf"upsampling\.{step}\.upsample_block\.{layer}\.": f"upscale.{3 * step + layer}."
        for step in range(MOST_STEPS)
        for layer in (0, 2)
    },
}


def _reading(state: dict[str, torch.Tensor], spelling: str, **settings: Any) -> Reading:
    """Of tensors with our names."""
    values, channels = shape(state, "upscale.0.weight")[:2]
    steps = sum(f"upscale.{3 * step}.weight" in state for step in range(MOST_STEPS))
    scale = shuffled_scale(values, channels) ** steps
    settings["channels"] = channels
    return Reading("srresnet", spelling, state, count(state, r"residual\.(\d+)\."), settings, (scale,))


def _with_instances(state: State) -> Reading:
    """The first releases of PyTorch kept statistics of an instance normalisation, which nothing uses."""
    state = renamed(state, ORIGINAL)
    unused = ("running_mean", "running_var", "num_batches_tracked")
    return _reading({n: t for n, t in state.items() if not n.endswith(unused)}, "original", norm="instance")


def _with_batches(spelling: str, rules: dict[str, str], **settings: bool) -> Callable[[State], Reading]:
    def read(state: State) -> Reading:
        found = renamed(state, rules)
        for block in range(count(found, r"residual\.(\d+)\.")):
            for part in (1, 2):
                found = without_batch_norm(found, f"residual.{block}.conv{part}", f"residual.{block}.in{part}")
        found = without_batch_norm(found, "conv_mid", "bn_mid")
        channels = shape(found, "conv_mid.weight")[0]
        for name, tensor in [*found.items()]:
            if tensor.ndim == 4:
                found.setdefault(name.replace("weight", "bias"), torch.zeros(len(tensor), dtype=torch.float32))
            elif tensor.ndim == 1 and name.endswith("weight"):  # of a PReLU
                found[name] = slope_per_channel(tensor, channels)
        return _reading(found, spelling, norm="none", **settings)

    return read


NAME = "SRResNet"
PUBLISHED = Published(
    (
        Spelling(NAME, ("conv_input.weight", "residual.0.in1.weight"), _with_instances),
        Spelling(
            NAME,
            ("conv_input.weight", "residual.0.bn1.running_var"),
            _with_batches("batch normalisation", ORIGINAL),
        ),
        *(
            Spelling(
                NAME,
                (f"{conv}1.0.weight", f"{conv}1.1.weight", "trunk.0.rcb.1.running_var", f"{conv}3.weight"),
                _with_batches("batch normalisation, PReLU", NUMBERED, prelu=True),
            )
            for conv in ("conv", "conv_block")
        ),
    ),
    MaskGuidedNames(r"residual\.(\d+)\."),
)
