"""Published networks with random weights, which conversions start from."""

from __future__ import annotations

import more_originals
import originals
from torch import Tensor

from mga_kernels.checkpoints import recognise
from mga_kernels.networks import WholeNetwork

TEACHERS = {
    "pan x2": (lambda: originals.pan(2), {"scale": 2}),
    "pan x3": (lambda: originals.pan(3), {"scale": 3}),
    "pan x4": (lambda: originals.pan(4), {}),
    "msrresnet x2": (lambda: originals.msrresnet(2), {}),
    "msrresnet x3": (lambda: originals.msrresnet(3), {}),
    "msrresnet x4": (lambda: originals.msrresnet(4, basicsr=True), {}),
    "imdn x4": (lambda: originals.imdn(4), {"input_range": "0..1"}),
    "imdn of 0..255": (lambda: originals.imdn(2), {"input_range": "0..255"}),
    "rfdn x4": (lambda: originals.rfdn(4), {"input_range": "0..255"}),
    "rfdn of 0..1": (lambda: originals.rfdn(3), {"input_range": "0..1"}),
    "srresnet": (originals.srresnet, {}),
    "srresnet of the paper": (originals.srresnet_of_the_paper, {}),
    "srgan": (lambda: more_originals.srgan(2), {}),
    "srgan, standardised": (lambda: more_originals.srgan(nested=True), {}),
    "rcan x4": (lambda: originals.rcan(4, basicsr=True), {}),
    "rcan x3": (lambda: originals.rcan(3), {}),
    "rcan of 0..1": (lambda: originals.rcan(2), {"input_range": "0..1"}),
}


def teacher_of(name: str) -> WholeNetwork:
    make, settings = TEACHERS[name]
    return recognise(make()[0], name, **settings)


def tame(state: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """With a last layer that adds little to the enlarged image."""
    state[f"{last}.weight"] *= 0.05
    state[f"{last}.bias"] *= 0.05
    return state
