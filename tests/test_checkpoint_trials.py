"""What the tensors of EDSR and RCAN do not tell: ranges, mean colours and by what blocks are multiplied. A trial does.

The networks here repeat pixels, by way of all their layers, and do something else to values below a level, which an
image in another range, or less a mean colour, has. So they work in one way alone.
"""

from __future__ import annotations

import re
import warnings

import local_originals as originals
import pytest
import torch
from network_zoo import photographs

from mga_kernels.checkpoints import recognise
from mga_kernels.errors import CheckpointError, CheckpointNote

DEPTH, GAIN, FAR = 3, 1.0, 1000.0
MEAN = tuple(255 * value for value in originals.DIV2K)
NONE = (0.0, 0.0, 0.0)


def passing(outputs: int, inputs: int, repeat: int = 1, by: float = 1.0) -> torch.Tensor:
    """Weights of a 3x3 convolution that hands on each channel, so many times."""
    weight = torch.zeros(outputs, inputs, 3, 3)
    for channel in range(outputs):
        if channel // repeat < inputs:
            weight[channel, channel // repeat, 1, 1] = by
    return weight


def edsr(basicsr: bool, residual: float, least: float, shift: bool, nf: int = 8) -> dict[str, torch.Tensor]:
    """x2. ``least``: what values fall below only where they are in another range, or less a mean."""
    state = {name: torch.zeros_like(tensor) for name, tensor in originals.edsr(2, basicsr, nf, DEPTH)[0].items()}
    first, after, up, last = (
        ("conv_first", "conv_after_body", "upsample.0", "conv_last")
        if basicsr
        else ("head.0", f"body.{DEPTH}", "tail.0.0", "tail.1")
    )
    for name in ("sub_mean", "add_mean") if not basicsr else ():
        for part in ("weight", "bias"):
            del state[f"{name}.{part}"]
    if shift:
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            state[f"{name}.weight"], state[f"{name}.bias"] = torch.eye(3).view(3, 3, 1, 1), sign * torch.tensor(MEAN)
    state[f"{first}.weight"], state[f"{after}.weight"] = passing(nf, 3), passing(nf, nf)
    for n in range(DEPTH):
        one, two = (f"body.{n}.conv1", f"body.{n}.conv2") if basicsr else (f"body.{n}.body.0", f"body.{n}.body.2")
        state[f"{one}.weight"], state[f"{two}.weight"] = passing(nf, nf, by=1 if n else -1), passing(nf, nf, by=GAIN)
        state[f"{one}.bias"] += FAR if n else least
        state[f"{two}.bias"] -= GAIN * FAR if n else 0
    state[f"{up}.weight"] = passing(4 * nf, nf, repeat=4)
    state[f"{last}.weight"] = passing(3, nf, by=1 / ((1 + residual * GAIN) ** (DEPTH - 1) + 1))
    return state


def rcan(least: float) -> dict[str, torch.Tensor]:
    """x2 of 8 channels in one group of one block, whose attention halves what it makes."""
    made = originals.rcan(2, groups=1, blocks=1)[0]
    state = {name: torch.zeros_like(tensor) for name, tensor in made.items() if "_mean" not in name}
    state["head.0.weight"], state["body.1.weight"] = passing(8, 3), passing(8, 8)
    state["body.0.body.0.body.0.weight"], state["body.0.body.0.body.2.weight"] = passing(8, 8, by=-1), passing(8, 8)
    state["body.0.body.0.body.0.bias"] += least
    state["body.0.body.1.weight"] = passing(8, 8)
    state["tail.0.0.weight"], state["tail.1.weight"] = passing(32, 8, repeat=4), passing(3, 8, by=1 / 3)
    return state


def for_small_values(state: dict[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    """What it does something else to is now above 20, as only values in 0..255 are."""
    return state | {
        f"{layer}.weight": -10 * state[f"{layer}.weight"],
        f"{layer}.bias": torch.full_like(state[f"{layer}.bias"], -200.0),
    }


def with_shift(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With the mean colour of a program that makes it and does not use it."""
    shifts = {f"{name}.weight": torch.eye(3).view(3, 3, 1, 1) for name in ("sub_mean", "add_mean")}
    return state | shifts | {"sub_mean.bias": -torch.tensor(MEAN), "add_mean.bias": torch.tensor(MEAN)}


CASES = {
    "as usual": (edsr(False, 1.0, -160, True), (1.0, MEAN, "0..255"), ""),
    "as usual, BasicSR": (edsr(True, 1.0, -160, False), (1.0, MEAN, "0..255"), ""),
    "as usual, without a mean": (edsr(False, 1.0, 0.0, False), (1.0, NONE, "0..1"), ""),
    "small residuals": (edsr(False, 0.1, -160, True), (0.1, MEAN, "0..255"), "residual 0.1"),
    "small residuals, BasicSR": (edsr(True, 0.1, -160, False), (0.1, MEAN, "0..255"), "residual 0.1"),
    "0..255 without a mean": (edsr(False, 1.0, 20.0, False), (1.0, NONE, "0..255"), "values in 0..255;"),
    "small residuals, and without a mean": (
        edsr(True, 0.1, 20.0, False),
        (0.1, NONE, "0..255"),
        r"mean \(0\.0, 0\.0, 0\.0\), residual 0\.1",
    ),
    "a wide one, as usual": (edsr(False, 0.1, -160, True, 256), (0.1, MEAN, "0..255"), ""),
    "a wide one with all of its residuals": (edsr(False, 1.0, -160, True, 256), (1.0, MEAN, "0..255"), "residual 1.0"),
    "the same in BasicSR": (edsr(True, 1.0, 20.0, False, 256), (1.0, NONE, "0..255"), r"mean .*, residual 1\.0"),
    "RCAN, 0..255 without a mean": (rcan(20.0), (1.0, NONE, "0..255"), "values in 0..255;"),
    "a mean that is not used": (
        for_small_values(edsr(False, 1.0, 0.0, True), "body.0.body.0"),
        (1.0, NONE, "0..1"),
        r"mean \(0\.0, 0\.0, 0\.0\), values in 0\.\.1;",
    ),
    "RCAN, a mean that is not used": (
        with_shift(for_small_values(rcan(0.0), "body.0.body.0.body.0")),
        (1.0, NONE, "0..1"),
        r"mean \(0\.0, 0\.0, 0\.0\), values in 0\.\.1;",
    ),
    "RCAN as usual": (rcan(0.0), (1.0, NONE, "0..1"), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_trial_shows_what_tensors_do_not_tell(name):
    state, expected, note = CASES[name]
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        network = recognise(state, "it")
    settings = network.config.settings
    found = settings.get("residual", 1.0), pytest.approx(settings["mean"]), network.config.input_range
    assert found == expected
    assert [bool(re.search(note, str(found.message))) for found in notes] == [True] * bool(note)
    assert all(found.category is CheckpointNote for found in notes)
    image = 0.2 + 0.6 * photographs(9, 14)
    enlarged = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (network(image) - enlarged).abs().max() < 1e-4


def test_a_range_that_is_asked_for_brings_its_mean_colour():
    asked = recognise(edsr(True, 1.0, -160, False), "it", input_range="0..1")
    assert asked.config.settings["mean"] == pytest.approx([value / 255 for value in MEAN])
    asked = recognise(edsr(False, 1.0, 0.0, False), "it", input_range="0..255")
    assert (asked.config.settings["mean"], asked.config.input_range) == (NONE, "0..255")


def test_a_compact_network_without_slopes_is_named():
    state = {name: tensor for name, tensor in originals.compact(2)[0].items() if tensor.ndim > 1 or "bias" in name}
    with pytest.raises(CheckpointError, match="is like SRVGGNetCompact without PReLU: whether ReLU or LeakyReLU"):
        recognise(state, "it")
