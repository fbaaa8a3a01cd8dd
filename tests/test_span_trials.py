"""What the tensors of SPAN do not tell: its range and mean colour. A trial does."""

from __future__ import annotations

import warnings

import local_originals as originals
import pytest
import torch
from network_zoo import photographs

from mga_kernels.architectures.span.published import IMAGENET, KNOWN, MARK
from mga_kernels.checkpoints import recognise
from mga_kernels.checkpoints.probe import right_colours
from mga_kernels.errors import CheckpointError, CheckpointNote
from mga_kernels.networks import WholeConfig, WholeNetwork


def enlarging_span(value_range: float, mean: tuple[float, ...], scale: int, tint: float = 0.0, nf: int = 8) -> dict:
    """SPAN that repeats pixels, for an image from which this mean was taken and which was multiplied by this range."""
    state = {name: torch.zeros_like(t) for name, t in originals.span_folded(originals.span(scale, nf)[0]).items()}
    state["conv_1.eval_conv.weight"][range(3), range(3), 1, 1] = 1
    state["conv_cat.weight"][range(nf), range(nf), 0, 0] = 1 / value_range
    for c in range(3):
        state["upsampler.0.weight"][c * scale**2 : (c + 1) * scale**2, c, 1, 1] = 1
        state["upsampler.0.bias"][c * scale**2 : (c + 1) * scale**2] = mean[c] + tint
    return {name: t.float() for name, t in state.items()}


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.input_range} {known.settings['mean'][0]}")
def test_the_constants_of_span_are_told_by_a_trial(known, scale):
    state = enlarging_span(**known.settings, scale=scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = recognise(state, "it")
    assert {name: network.config.settings[name] for name in known.settings} == known.settings
    image = photographs(12, 14)
    repeated = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert (network(image) - repeated)[..., 1:-1, 1:-1].abs().max() < 1e-4


@pytest.mark.parametrize("known", KNOWN[:2], ids=lambda known: known.input_range)
def test_a_gan_that_shifts_colours_keeps_the_usual_constants(known):
    """As one of the published files does, by 8 levels: the usual ones are nearer to it than any others by far."""
    tint = 8 / 255 * (1 if known is KNOWN[0] else 0.4)
    for sign in (-1, 1):
        network = recognise(enlarging_span(**known.settings, scale=2, tint=sign * tint), "it")
        assert {name: network.config.settings[name] for name in known.settings} == known.settings


def test_constants_that_nothing_tells():
    state = enlarging_span(255.0, originals.DIV2K, 2)
    state["upsampler.0.bias"] += 0.3
    with pytest.warns(CheckpointNote, match=r"taken are the usual constants, value_range 255.0, .*--input-range"):
        assert recognise(state, "it").config.settings["value_range"] == 255.0
    assert recognise(enlarging_span(1.0, IMAGENET, 2), "it", input_range="0..1").config.settings["mean"] == IMAGENET
    with pytest.warns(CheckpointNote, match="value_range 1.0"):
        assert recognise(state, "it", input_range="0..1").config.settings["value_range"] == 1.0
    with pytest.raises(CheckpointError, match=r'it works on 0..1 or 0..255, not on input_range="clipped"'):
        recognise(state, "it", input_range="clipped")
    marked = recognise(state | {MARK: torch.zeros(1)}, "it")
    assert (marked.config.settings["value_range"], marked.config.settings["mean"]) == (1.0, (0.0, 0.0, 0.0))


def test_infinite_shifts_decide_nothing():
    state = enlarging_span(255.0, originals.DIV2K, 2)
    state["upsampler.0.weight"] *= 1e38
    network = WholeNetwork(WholeConfig("span", 2, 6, {"channels": 8})).eval()
    network.load_state_dict({f"body.{n.replace('.eval_conv', '').replace('_r.', '.')}": t for n, t in state.items()})
    assert right_colours([network])[0] is None
