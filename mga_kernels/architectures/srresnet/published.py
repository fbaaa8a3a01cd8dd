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
Rules = dict[str, str]


def _steps(conv: str, slope: str) -> Rules:
    """Rules for the two layers of each step of an upsampler, of which these are the names with {} for its number."""
    steps = range(MOST_STEPS)
    rules = {conv.format(step): f"upscale.{3 * step}." for step in steps}
    return rules | {slope.format(step): f"upscale.{3 * step + 2}." for step in steps}


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
    **_steps(r"upsampling\.{}\.upsample_block\.0\.", r"upsampling\.{}\.upsample_block\.2\."),
}
NESTED = {  # each convolution in a Sequential of its own, with what follows it
    r"conv_block1\.conv_block\.0\.": "conv_input.",
    r"conv_block1\.conv_block\.1\.": "relu.",
    r"residual_blocks\.(\d+)\.conv_block(\d)\.conv_block\.0\.": r"residual.\1.conv\2.",
    r"residual_blocks\.(\d+)\.conv_block(\d)\.conv_block\.1\.": r"residual.\1.in\2.",
    r"residual_blocks\.(\d+)\.conv_block1\.conv_block\.2\.": r"residual.\1.relu.",
    r"conv_block2\.conv_block\.0\.": "conv_mid.",
    r"conv_block2\.conv_block\.1\.": "bn_mid.",
    r"conv_block3\.conv_block\.0\.": "conv_output.",
    **_steps(r"subpixel_convolutional_blocks\.{}\.conv\.", r"subpixel_convolutional_blocks\.{}\.prelu\."),
}


def _srgan(state: State) -> Rules:
    """Rules for blocks by numbers: the first convolution, the residual blocks, the last of them, and the upsampler."""
    blocks = count(state, r"block(\d+)\.conv1\.")
    last, up = f"block{blocks + 2}", rf"block{blocks + 3}\."
    rules = {r"block1\.0\.": "conv_input.", r"block1\.1\.": "relu."}
    for block in range(blocks):
        start = rf"block{block + 2}\."
        parts = {r"bn(\d)\.": r"in\1.", r"prelu\.": "relu.", "": ""}
        rules |= {f"{start}{part}": f"residual.{block}.{name}" for part, name in parts.items()}
    rules |= {rf"{last}\.0\.": "conv_mid.", rf"{last}\.1\.": "bn_mid."}
    rules |= _steps(rf"{up}{{}}\.conv\.", rf"{up}{{}}\.prelu\.")
    return rules | {rf"{up}{count(state, rf'{up}([0-9]+)[.]conv[.]')}\.": "conv_output."}


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


def _with_batches(
    spelling: str, rules: Rules | Callable[[State], Rules], **settings: bool
) -> Callable[[State], Reading]:
    def read(state: State) -> Reading:
        found = renamed(state, rules(state) if callable(rules) else rules)
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
        Spelling(
            NAME,
            ("block1.0.weight", "block1.1.weight", "block2.bn1.running_var", "block2.prelu.weight"),
            _with_batches("SRGAN", _srgan, prelu=True, tanh=True),
        ),
        Spelling(
            NAME,
            (
                "conv_block1.conv_block.0.weight",
                "residual_blocks.0.conv_block1.conv_block.1.running_var",
                "subpixel_convolutional_blocks.0.prelu.weight",
            ),
            _with_batches("SRGAN, standardised", NESTED, prelu=True, tanh=True, standardised=True),
        ),
    ),
    MaskGuidedNames(r"residual\.(\d+)\."),
)
