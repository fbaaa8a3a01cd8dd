"""What the engine and the runtimes know of a network, be it a whole or a mask-guided one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError

if TYPE_CHECKING:
    from . import Config
    from .mask import MaskPrediction
    from .registry import Network

MASK_REACH = 2  # LR pixels, of the two convolutions of the mask module
FILTER_REACH = 2  # cells, of the filter of its D-Conv


def outputs(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a module returned, one tensor or several."""
    return (made,) if isinstance(made, Tensor) else tuple(made)


def padded_size(config: Config, height: int, width: int) -> tuple[int, int]:
    """Sides of an image in LR pixels, extended to what the network takes at least, and to whole cells."""
    smallest, p = config.definition.minimum_size, config.patch_size
    return math.ceil(max(height, smallest) / p) * p, math.ceil(max(width, smallest) / p) * p


def working_bytes(config: Config, values: int, height: int, width: int, itemsize: int) -> int:
    """Memory alive at the peak of ``front``, of whose values, of ``itemsize`` bytes, a pixel has ``values``."""
    pixels = math.prod(padded_size(config, height, width))
    return pixels * (values * itemsize + 3 * config.scale**2 * config.converted_bytes)


@dataclass(frozen=True)
class Reach:
    """What tiles of an image keep to, as the halves of a network say in their attributes (``registry.Network``).

    ``front`` and ``refine``: LR pixels to each side on which what they return depends, None where it is all of the
    image. ``around``: how far what else is made of a feature looks. ``multiple``: a tile starts at its multiples.
    ``takes_place``: ``front`` must know where a tile stands.
    """

    front: int | None
    refine: int | None
    around: int
    multiple: int
    takes_place: bool

    @classmethod
    def of(cls, front: nn.Module, refine: nn.Module | None, around: int) -> Reach:
        return cls(
            getattr(front, "receptive_field", None),
            0 if refine is None else getattr(refine, "receptive_field", None),
            around,
            getattr(front, "tile_multiple", 1),
            getattr(front, "takes_place", False),
        )


@dataclass(frozen=True)
class Halves:
    """What convolutions of our own are made of: float32 modules on the CPU, which are not changed.

    The Base-Net is given values in 0..``value_range``. ``refine`` and ``mask`` are None where only it runs, as it is a
    whole network.
    """

    config: Config
    value_range: float
    base: nn.Module
    refine: nn.Module | None = None
    mask: MaskPrediction | None = None
    halo: int = 0


@dataclass(frozen=True)
class Windows:
    """How a Refine-Net runs parts of an image whose own layers are not known: with ``halo`` LR pixels around them.

    A part starts at multiples of ``side``, as does what the network does with windows, and has sides of ``smallest`` or
    more. ``together``: several parts of one size at once give what each gives alone.
    """

    side: int
    halo: int
    smallest: int
    together: bool


@dataclass(frozen=True)
class Cells:
    """Which cells are refined. ``k`` and ``selection`` None: those of the configuration.

    ``k`` is clamped to the number of cells; with a ``threshold`` those of them whose mask value is larger.
    """

    k: int | None = None
    selection: str | None = None
    seed: int = 0
    threshold: float | None = None


USUAL = Cells()


class SRNetwork(nn.Module, ABC):
    """Images are (B, 3, H, W) in [0, 1], sides no less than the network's ``minimum_size``; results (B, 3, sH, sW).

    ``masked``: whether it has a mask and a Refine-Net, by which cells are refined apart from the others. A whole
    network is all ``front``. ``variants``: the ways to run it, the usual one last. ``input_dtype``: what ``front`` is
    given whatever the dtype of its weights, None where it is that dtype.
    """

    config: Config
    masked: ClassVar[bool]
    variants: ClassVar[tuple[str, ...]]
    input_dtype: ClassVar[torch.dtype | None] = None
    value_range = 1.0
    halo = 0

    @property
    @abstractmethod
    def front(self) -> nn.Module:
        """Image in 0..``value_range`` -> coarse image in the same, of a mask-guided one with the coarse feature."""

    @property
    def working_values(self) -> int:
        """Numbers alive for each LR pixel at the peak of ``front``."""
        return self.config.definition.working_values

    @property
    @abstractmethod
    def reach(self) -> Reach: ...

    @property
    @abstractmethod
    def staged(self) -> Network | None:
        """The network whose halves have convolutions of our own, and run in place of this one."""

    @abstractmethod
    def halves(self) -> Halves | str:
        """Those of ``staged``, or why they do not fit this network."""

    @abstractmethod
    def unclamped(self, image: Tensor, variant: str = "", cells: Cells = USUAL) -> Tensor:
        """What ``forward`` makes of it before values are clamped, in which those that are not finite can be seen."""

    def convert(self, front: torch.dtype, back: torch.dtype) -> None:
        """Convert the weights in place: those of the Refine-Net to ``back``, all others to ``front``."""
        for part in self.children():  # not all to ``front`` first, which would round those of the Refine-Net
            part.to(back if part is self.back else front)

    @property
    def alternatives(self) -> tuple[SRNetwork, ...]:
        """Whole networks of which each sub-image of an image takes one, by its class; none of other networks."""
        return ()

    def classes(self, sub_images: Tensor) -> Tensor:
        """Sub-images (n, 3, h, w) in [0, 1] -> which of ``alternatives`` each takes, int64 (n)."""
        raise InputError(f"{self.config.network} is one network for all of an image, which has no classes")

    # What only mask-guided networks have.

    @property
    def pair(self) -> tuple[SRNetwork, SRNetwork] | None:
        """Base-Net and Refine-Net of one whose cells are refined in connected regions: whole networks, both."""
        return None

    @property
    def averages(self) -> bool:
        """Of a ``pair``, whether refined cells are the mean of both networks' pictures."""
        return False

    @property
    def windows(self) -> Windows | None:
        """Of a ``pair`` whose Refine-Net runs rectangles of an image, not regions layer by layer."""
        return None

    @property
    def mask_module(self) -> MaskPrediction | None:
        return None

    @property
    def back(self) -> nn.Module | None:
        """The Refine-Net: patches of the coarse feature, (N, C, p + 2h, p + 2h) -> HR patches in 0..``value_range``."""
        return None

    @property
    def back_of_all(self) -> nn.Module | None:
        """What takes a feature (N, C, H, W) without a border in its place, where there is such a thing."""
        return None

    def trunk(self) -> nn.Module:
        """``front`` with the same weights, which leaves out what only the coarse image needs."""
        return self.front

    def select(self, feature: Tensor, k: int, selection: str | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mask (B, H/p, W/p) and the indices (B, K) int32 of the selected cells."""
        raise InputError(f"{self.config.network} is a whole network, which has no mask by which cells could be chosen")

    def refine_patches(self, patches: Tensor) -> Tensor:
        """Gathered patches (n, C, p + 2h, p + 2h) -> HR patches (n, 3, sp, sp) in [0, 1], not clamped."""
        raise InputError(f"{self.config.network} has no Refine-Net of patches")

    def decomposed(self, feature: Tensor) -> Tensor:
        """The Refine-Net over the whole coarse feature (B, C, H, W) -> (B, 3, sH, sW) in [0, 1], not clamped."""
        raise InputError(f"{self.config.network} is a whole network, which has no Refine-Net")


class MaskedNetwork(SRNetwork):
    """One with a mask, by which some cells are refined."""

    masked = True

    def forward(
        self,
        image: Tensor,
        k: int | None = None,
        variant: str = "masked",
        selection: str | None = None,
        seed: int = 0,
        threshold: float | None = None,
    ) -> Tensor:
        """SR image (B, 3, sH, sW) in [0, 1]; the cells of ``variant`` "masked" are those of ``Cells``."""
        return self.unclamped(image, variant, Cells(k, selection, seed, threshold)).clamp(0, 1)
