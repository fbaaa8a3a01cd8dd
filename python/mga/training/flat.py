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
from mga_kernels.networks import MaskGuidedNetwork, SRNetwork

from .colour import colour_values
from .objectives import both_images

LEVELS = (0, 64, 128, 192, 255)  # of each channel of the flat colours that are checked
VISIBLE_LEVELS = 2  # of 255, by which none of them may move
FLAT_SIDE = 20  # LR pixels of a flat image that is checked
BORDER = 8  # of which so many on each side are not looked at
TINY_SIDES = (1, 2, 3)  # LR pixels of images that are checked by their mean
FLATS = 12  # flat images in an iteration
TOLERATED = 1.0 / 255  # error of a flat image that costs nothing


def flat_colours() -> list[tuple[int, int, int]]:
    """The 125 colours that every shipped model must keep."""
    return list(itertools.product(LEVELS, LEVELS, LEVELS))


def flat_images(seed: int, number: int, device: torch.device | str = "cpu") -> Tensor:
    """(FLATS, 3, FLAT_SIDE, FLAT_SIDE) in 0..1, each of one colour, for iteration ``number``."""
    colours = torch.from_numpy(colour_values(np.random.default_rng([seed, number, 1]), FLATS)).float()
    return colours.to(device)[:, :, None, None].expand(-1, -1, FLAT_SIDE, FLAT_SIDE)


def flat_loss(network: MaskGuidedNetwork, lr: Tensor, step: str, coarse_weight: float) -> Tensor:
    """Of both flat images, as ``image_loss`` has it, four times the error above TOLERATED and its square in levels.

    The square is for the few colours that a network moves most. The border is left out and a small error costs nothing:
    to keep a colour beside the zeros that lie around an image, or to a tenth of a level, costs a small network what it
    knows of photographs (0.2 dB of FSRCNN x3 on Set5, which now loses none).
    """
    coarse, final = both_images(network, lr, step)
    moved = colours_moved(coarse, lr)
    return moved if step == "base" else colours_moved(final, lr) + coarse_weight * moved


def colours_moved(image: Tensor, lr: Tensor) -> Tensor:
    """``flat_loss`` of one image that was made of the flat ``lr``."""
    border = BORDER * (image.shape[-1] // lr.shape[-1])
    within = image[..., border:-border, border:-border].float()
    above = ((within - lr[..., :1, :1]).abs() - TOLERATED).relu()
    return 4 * (above + 255 * above.square()).mean()


@torch.no_grad()
def colour_errors(network: SRNetwork) -> dict[str, float]:
    """By how many levels of 255 the worst of the flat colours moves, in the coarse image and where all is refined.

    "coarse" and "all": the largest difference of a pixel, BORDER aside; "tiny coarse" and "tiny all": of the mean of an
    image of 1x1 to 3x3. Of a whole network they are "whole" and "tiny whole".
    """
    whole = not network.masked
    engine = MaskGuidedSR(network, fraction=None if whole else 1.0)
    variants = {"whole": "whole"} if whole else {"base": "coarse", "all": "all"}
    colours = torch.tensor(flat_colours(), dtype=torch.float32) / 255
    errors = {key: 0.0 for name in variants.values() for key in (name, f"tiny {name}")}
    for variant, name in variants.items():
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
