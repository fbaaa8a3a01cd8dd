"""How large a result is to be, and pictures shrunk to that from what a network makes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..quantities import integer, real
from .photo import resize


@dataclass(frozen=True)
class Size:
    """``scale`` times the image, or the largest that fits into ``width`` and ``height`` pixels; proportions are kept.

    ``width`` or ``height`` alone decides both sides. With nothing given it is what the network makes. InputError for
    numbers that are no sizes, or where ``scale`` stands beside the others.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            scale = real(self.scale)
            if scale is None or scale <= 0:
                raise InputError(f"size: the scale is a number above 0, such as 2 or 1.5, got {self.scale!r}")
            if self.width is not None or self.height is not None:
                raise InputError("size: a scale or pixels, not both")
            object.__setattr__(self, "scale", scale)
        for name in ("width", "height"):
            side = getattr(self, name)
            if side is None:
                continue
            if (pixels := integer(side)) is None or pixels < 1:
                raise InputError(f"size: {name} is a whole number of pixels above 0, got {side!r}")
            object.__setattr__(self, name, pixels)

    @property
    def given(self) -> bool:
        return (self.scale, self.width, self.height) != (None, None, None)

    def of(self, width: int, height: int, most: int) -> tuple[int, int]:
        """(width, height) of the result of an image of this size, which a network enlarges ``most`` times.

        InputError where that is more than the network makes.
        """
        if not self.given:
            return most * width, most * height
        factors = [asked / side for asked, side in ((self.width, width), (self.height, height)) if asked is not None]
        factor = self.scale if self.scale is not None else min(factors)
        sides = [max(1, math.floor(side * factor + 0.5)) for side in (width, height)]
        if factor > most:
            raise InputError(
                f"{sides[0]}x{sides[1]} is {factor:.4g} times {width}x{height}, and the model enlarges {most} times; "
                f"ask for {most * width}x{most * height} or less, or upscale the result once more"
            )
        return sides[0], sides[1]


def shrink(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 or uint16 (H, W, 3) -> (h, w, 3) of ``size`` (w, h): bicubic with antialiasing, in their encoding.

    Networks are trained on images that were shrunk so. Neither side grows.
    """
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    return resize(rgb, size)
