"""How far a network sees whose layers are not known, found by what changes in its pictures when images do.

Strips of noise are enough: an image of a few rows and many columns, and one that stands upright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mga_kernels.errors import InputError
from mga_kernels.networks import WholeNetwork

LENGTHS = (96, 192, 480)  # LR pixels of a strip, of which a third changes
CALM = 32  # at its other end so many stay the same, or it was too short
BREADTH = 16
PERIODS = (1, 8, 64, 48, 60, 56)  # LR pixels; what a network repeats by is one of these, or a part of one
EQUAL = 2e-5  # of white: less than that is the rounding of sums in another order


@dataclass(frozen=True)
class Sight:
    """``window``, ``sees`` and ``together`` of ``networks.black_box.BlackBoxConfig``."""

    window: int
    sees: int
    together: bool


def sight_of(network: WholeNetwork, name: str) -> Sight:
    """By trial. InputError, in a sentence that begins with ``name``, for a network without a limited sight."""
    looking = _Looking(network, name)
    limits = [(upright, *looking.limited(upright)) for upright in (False, True)]
    window = math.lcm(*(looking.period(upright, sees) for upright, _, sees in limits))
    if all(length // 3 % window == 0 for _, length, _ in limits):
        sees = max(sees for _, _, sees in limits)
    else:  # the edges of what changed were not at those of windows
        sees = max(looking.seen(upright, length, window) for upright, length, _ in limits)
    return Sight(window, sees, looking.together())


class _Looking:
    def __init__(self, network: WholeNetwork, name: str):
        self.network, self.scale = network, network.config.scale
        self.what = f"convert: {name} is {network.config.network}, which"
        self.breadth = max(BREADTH, network.config.definition.minimum_size)
        self.random = torch.Generator().manual_seed(0)

    def limited(self, upright: bool) -> tuple[int, int]:
        """The length of a strip that is longer than what it sees, and how far that is."""
        for length in LENGTHS:
            limit = length - length // 3 - CALM
            sees = self.seen(upright, length, 1, limit)
            if sees <= limit:
                return length, sees
        raise InputError(
            f"{self.what} looks at the whole image: what changes at one end of an image changes the picture more than "
            f"{limit} pixels away, as means over the image do; parts of an image cannot be refined by themselves"
        )

    @torch.no_grad()
    def seen(self, upright: bool, length: int, window: int, limit: int = LENGTHS[-1]) -> int:
        """Pixels from the edge of what changes within which the picture changes, too, of both ends of a strip.

        Or of one of them, where that is more than ``limit`` already.
        """
        length = -(-length // window) * window
        edge = -(-(length // 3) // window) * window
        image, other = self._noise(length), self._noise(length)
        before = self._run(image, upright)
        found = 0
        for near in (True, False):
            changed = image.clone()
            part = slice(0, edge) if near else slice(length - edge, length)
            changed[..., part] = other[..., part]
            differs = (self._run(changed, upright) != before).flatten(0, 2).any(0).view(length, self.scale).any(1)
            beyond = differs[edge:] if near else differs[: length - edge].flip(0)
            found = max(found, int(beyond.nonzero().max()) + 1 if beyond.any() else 0)
            if found > limit:
                break
        return found

    @torch.no_grad()
    def period(self, upright: bool, sees: int) -> int:
        """By how many pixels an image may begin later for the same picture of what it has then."""
        most = max(PERIODS)
        margin = sees + most
        length = 2 * margin + 2 * most
        image = self._noise(length)
        whole = self._run(image, upright)[..., margin * self.scale : (length - margin) * self.scale]

        def repeats(by: int) -> bool:
            part = self._run(image[..., by:], upright)
            moved = part[..., (margin - by) * self.scale : (length - margin - by) * self.scale]
            return bool((whole - moved).abs().max() <= EQUAL)

        for period in PERIODS:
            if repeats(period):
                for prime in (2, 3, 5, 7):
                    while period % prime == 0 and period > prime and repeats(period // prime):
                        period //= prime
                return period
        raise InputError(
            f"{self.what} makes another picture of what is elsewhere in an image, also by whole windows of up to "
            f"{most} pixels; parts of an image cannot be refined by themselves"
        )

    @torch.no_grad()
    def together(self) -> bool:
        """Whether two images at once give what each gives alone."""
        images = torch.cat([self._noise(2 * self.breadth), self._noise(2 * self.breadth)])
        alone = torch.cat([self._run(image[None], False) for image in images])
        try:
            return bool((self._run(images, False) - alone).abs().max() <= EQUAL)
        except (RuntimeError, ValueError, IndexError, AssertionError):  # code that was written for one image
            return False

    def _noise(self, length: int) -> Tensor:
        return torch.rand(1, 3, self.breadth, length, generator=self.random)

    def _run(self, image: Tensor, upright: bool) -> Tensor:
        made = self.network(image.transpose(2, 3).contiguous()).transpose(2, 3) if upright else self.network(image)
        if not made.isfinite().all():
            raise InputError(f"{self.what} gives values that are not finite; its weights are damaged")
        return made
