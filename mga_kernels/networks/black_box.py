"""A network known only by what it makes of an image, as the Refine-Net of regions of what one of ours makes.

Another library runs it (``checkpoints.spandrel``): its layers are not ours, so nothing is exchanged between parts of an
image layer by layer. The cells that are chosen lie in rectangles, which start where the network's own windows do and
have a halo around them; each of these is run as an image of its own. How far from a cut the picture is another one, and
what a halo is worth, ``mga convert --black-box`` measures. A network that takes means over the whole image has no such
distance and is refused there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from ..errors import InputError
from ..quantities import check_whole_number, plain_fields, real
from .interface import Reach, Windows
from .regions import Facts, RegionConfig, RegionNetwork
from .registry import Network
from .whole import WholeConfig

WORKING_VALUES = 6000  # numbers alive for each LR pixel of a network that is not known: twice those of the largest
WIDEST = 1 << 10  # LR pixels, of windows and what a part of an image takes at least


@dataclass(frozen=True)
class BlackBoxConfig(RegionConfig):
    """What defines such a network apart from its weights; ``RegionConfig`` has the other fields.

    ``refine`` has the name of a network that is not ours; its ``original`` is there once the weights are loaded.
    ``window``: a part of an image has the same picture as within it only where it starts at multiples of so many LR
    pixels. ``sees``: LR pixels from the edge of such a part within which what lies beyond the edge changes its picture.
    ``smallest``: the sides that it takes at least. ``together``: several images at once give what each gives alone.
    ``weights``: the number of its parameters. ``halos``: dB inside of regions to the whole picture, by their halo, as
    measured.
    """

    window: int = 1
    sees: int = 0
    smallest: int = 1
    together: bool = True
    weights: int = 0
    halos: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain_fields(self, "window", "sees", "smallest", "weights")
        for name, least in (("window", 1), ("sees", 0), ("smallest", 1), ("weights", 0)):
            number = check_whole_number(f"model: {name} of a network that is not ours", getattr(self, name), least)
            if name in ("window", "smallest") and number > WIDEST:
                raise InputError(f"model: {name} is at most {WIDEST} LR pixels, got {number}")
        if type(self.together) is not bool:
            raise InputError(f"model: together is true or false, got {self.together!r}")
        if not isinstance(self.halos, dict) or any(real(value) is None for value in self.halos.values()):
            raise InputError(f"model: halos are numbers of dB by the halo, got {self.halos!r}")
        if self.mean:
            raise InputError("model: a network that is not ours makes refined cells alone, and mean is true")
        super().__post_init__()

    @property
    def halo_unit(self) -> int:
        return self.window

    @classmethod
    def refining(cls, facts: Facts) -> WholeConfig:
        name = facts["network"]
        if not isinstance(name, str):
            raise InputError(f"model: the name of a network is a text, got {name!r}")
        return WholeConfig(name, facts["scale"], original=Network(name, _NotLoaded(name)))


class _NotLoaded:
    """Stands for what makes the module, as long as only the configuration is known."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, scale: int, blocks: int) -> nn.Module:
        raise InputError(f"model: {self.name} is not one of our networks; load its file, which another library runs")


class BlackBoxNetwork(RegionNetwork):
    """As ``RegionNetwork``; this module is the definition, with a halo of all that the Refine-Net sees."""

    config: BlackBoxConfig

    @property
    def windows(self) -> Windows:
        config = self.config
        return Windows(config.window, config.halo, config.smallest, config.together)

    @property
    def reach(self) -> Reach:
        """Never cut into tiles: into which rectangles a region falls depends on all of it."""
        return Reach(None, None, 1, math.lcm(self.config.window, self.base.reach.multiple), False)
