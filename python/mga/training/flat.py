"""Flat images: a loss that makes a network keep their colours, and the check whether it does.

Photographs, and more so their hardest windows, have few flat areas and few vivid colours. A small network trained on
nothing else is free to answer anything there: one made (0, 128, 0) into (0, 254, 0).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import MaskGuidedNetwork

from .colour import colour_values
from .objectives import both_images, l1

LEVELS = (0, 64, 128, 192, 255)  # of each channel of the flat colours that are checked
VISIBLE_LEVELS = 2  # of 255, by which none of them may move
FLAT_SIDE = 20  # LR pixels of a flat image that is checked
BORDER = 8  # of which so many on each side are not looked at
TINY_SIDES = (1, 2, 3)  # LR pixels of images that are checked by their mean
FLAT_SIDES = (4, 8, 20)  # LR pixels of the flat images trained on, one after the other
FLATS = 12  # flat images in an iteration
TOLERATED = 0.5 / 255  # error of a flat image that costs no more than l1


def flat_colours() -> list[tuple[int, int, int]]:
    """The 125 colours that every shipped model must keep."""
    return list(itertools.product(LEVELS, LEVELS, LEVELS))


def flat_images(seed: int, number: int, device: torch.device | str = "cpu") -> Tensor:
    """(FLATS, 3, n, n) in 0..1, each of one colour, for iteration ``number``; n changes from one to the next."""
    colours = torch.from_numpy(colour_values(np.random.default_rng([seed, number, 1]), FLATS)).float()
    side = FLAT_SIDES[number % len(FLAT_SIDES)]
    return colours.to(device)[:, :, None, None].expand(-1, -1, side, side)


def flat_loss(network: MaskGuidedNetwork, lr: Tensor, step: str, coarse_weight: float) -> Tensor:
    """The error of flat images, as ``image_loss`` has it, and four times what lies above TOLERATED, and its square.

    The square, in levels, is for the few colours that a network moves most.
    """
    coarse, final = both_images(network, lr, step)
    hr = lr[..., :1, :1].expand_as(coarse)

    def moved(image: Tensor) -> Tensor:
        above = ((image.float() - hr).abs() - TOLERATED).relu()
        return l1(image, hr) + 4 * (above + 255 * above.square()).mean()

    return moved(coarse) if step == "base" else moved(final) + coarse_weight * moved(coarse)


@torch.no_grad()
def colour_errors(network: MaskGuidedNetwork) -> dict[str, float]:
    """By how many levels of 255 the worst of the flat colours moves, in the coarse image and where all is refined.

    "coarse" and "all": the largest difference of a pixel, BORDER aside; "tiny coarse" and "tiny all": of the mean of an
    image of 1x1 to 3x3.
    """
    engine = MaskGuidedSR(network, fraction=1.0)
    colours = torch.tensor(flat_colours(), dtype=torch.float32) / 255
    errors = dict.fromkeys(("coarse", "all", "tiny coarse", "tiny all"), 0.0)
    for variant, name in (("base", "coarse"), ("all", "all")):
        for side in (FLAT_SIDE, *TINY_SIDES):
            image = colours[:, :, None, None].expand(-1, -1, side, side).contiguous()
            moved = engine(image, variant).cpu() - colours[:, :, None, None]
            if side == FLAT_SIDE:
                border = BORDER * network.config.scale
                moved, key = moved[..., border:-border, border:-border], name
            else:
                moved, key = moved.mean((2, 3)), f"tiny {name}"
            errors[key] = max(errors[key], 255 * float(moved.abs().max()))
    return errors
