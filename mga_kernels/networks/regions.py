"""Two whole networks as one that is mask-guided: a small one for all of an image, a large one where it is not enough.

The small one is the Base-Net, distilled from the large one. The large one, the Refine-Net, is a published network as it
is. It runs over connected regions of cells, from the image on, so that neighbours see each other as in the whole
image; where all cells are refined the picture is the published network's. Which cells come first is seen in the coarse
picture: those with the most of what a mean over 3 x 3 pixels takes away, and with such beside them (``detail``), a mask
that costs nothing.

Or both are published networks, and a refined cell is the mean of what the two make of it, which is nearer to the truth
than either where they are about equally good and err differently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..ops import output_to_image, select_patches
from ..quantities import plain_fields, real
from .amount import Amount, above
from .config import HIGH_PASS, Configuration, readable
from .detail import detail
from .interface import USUAL, Cells, MaskedNetwork, Reach, SRNetwork
from .mask_guided import VARIANTS
from .registry import Network
from .whole import WholeConfig, WholeNetwork

PATCH_SIZES = (4, 8, 12, 16, 24)
ALL = 1 << 40  # more cells than any image has

Facts = dict[str, Any]  # of a configuration, as JSON has them


@dataclass(frozen=True)
class RegionConfig(Configuration):
    """What defines such a network apart from its weights.

    ``base`` and ``refine``, whole networks of RGB and of one scale. ``patch_size``: the side of a cell in LR pixels.
    ``halo``: so many LR pixels around the cells are computed with them, a multiple of 4. ``qualities``: by name, the
    value of the mask above which cells are refined; where nothing is asked for it is that of ``quality``, and without
    one ``share`` of the cells are. ``mean``: a refined cell is the mean of both networks' pictures, not the
    Refine-Net's.
    """

    base: WholeConfig
    refine: WholeConfig
    patch_size: int = 8
    halo: int = 16
    share: float = 0.3
    quality: str = ""
    qualities: dict[str, float] = field(default_factory=dict)
    mean: bool = False

    k, usual_mask, masked, halos_shared = ALL, HIGH_PASS, True, True  # not annotated, so no fields
    feature_channels, mask_channels = 3, 3
    parts: ClassVar[tuple[str, str]] = ("base", "refine")

    def __post_init__(self) -> None:
        plain_fields(self, "patch_size", "halo")
        if self.patch_size not in PATCH_SIZES:
            raise InputError(f"model: patch_size {self.patch_size!r} is not supported; choose one of {PATCH_SIZES}")
        unit = self.halo_unit
        if type(self.halo) is not int or self.halo < 0 or self.halo % unit:
            raise InputError(f"model: halo must be a multiple of {unit} LR pixels, 0 or more, got {self.halo!r}")
        if self.base.scale != self.refine.scale:
            raise InputError(f"model: the two networks are of x{self.base.scale} and x{self.refine.scale}")
        if type(self.mean) is not bool:
            raise InputError(f"model: mean is true or false, got {self.mean!r}")
        share = real(self.share)
        if share is None or not 0 <= share <= 1:
            raise InputError(f"model: share is one of the cells, between 0 and 1, got {self.share!r}")
        if self.quality not in ("", *self.qualities) or any(real(value) is None for value in self.qualities.values()):
            raise InputError(f"model: quality {self.quality!r} is not one with a value, which are {self.qualities}")

    @property
    def halo_unit(self) -> int:
        return 4

    @property
    def usual(self) -> Amount:
        return Amount(threshold=self.qualities[self.quality]) if self.quality else Amount(fraction=self.share)

    @property
    def network(self) -> str:
        return self.refine.network

    @property
    def scale(self) -> int:
        return self.refine.scale

    @property
    def definition(self) -> Network:
        """The Refine-Net's, for images that both networks take."""
        smallest = self.base.definition.minimum_size
        found = self.refine.definition
        return found if smallest <= found.minimum_size else replace(found, minimum_size=smallest)

    def to_json(self) -> str:
        facts: Facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.parts}
        parts = {part: json.loads(getattr(self, part).to_json()) for part in self.parts}
        return json.dumps(facts | parts, sort_keys=True)

    @classmethod
    @readable()
    def from_json(cls, text: str) -> Self:
        """Inverse of ``to_json``; InputError where the text is not a configuration that this version can run."""
        values = json.loads(text)
        base, refine = WholeConfig.from_json(json.dumps(values.pop("base"))), cls.refining(values.pop("refine"))
        return cls(base, refine, **values)

    @classmethod
    def refining(cls, facts: Facts) -> WholeConfig:
        """The Refine-Net's configuration, as it stands in a file."""
        return WholeConfig.from_json(json.dumps(facts))


class RegionNetwork(MaskedNetwork):
    """Images are (B, 3, H, W) in [0, 1]; the coarse feature is the image itself.

    Without ``k`` and ``threshold`` the usual cells are refined. This module is the definition: cells are what the whole
    Refine-Net makes of the whole image, as with a halo that covers all that it sees.
    """

    config: RegionConfig
    variants = VARIANTS

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.config = config
        self.base, self.refine = WholeNetwork(config.base), WholeNetwork(config.refine)
        if self.windows is None and (self.refine.reach.front is None or self.refine.reach.takes_place):
            raise InputError(
                f"model: {config.network} looks at the whole image or at where it is, so parts of an image cannot be "
                "refined by themselves"
            )

    @property
    def input_dtype(self) -> torch.dtype | None:  # type: ignore[override]
        return self.base.input_dtype

    @property
    def front(self) -> nn.Module:
        return _WithImage(self.base)

    @property
    def back_of_all(self) -> nn.Module:
        return self.refine

    @property
    def working_values(self) -> int:
        return max(self.base.working_values, self.refine.working_values)

    @property
    def pair(self) -> tuple[SRNetwork, SRNetwork]:
        return self.base, self.refine

    @property
    def averages(self) -> bool:
        return self.config.mean

    @property
    def reach(self) -> Reach:
        base, whole = self.base.reach, self.refine.reach
        # A Base-Net that must know where a tile stands is given none.
        front = None if base.takes_place else base.front
        return Reach(front, whole.front, 1, max(whole.multiple, base.multiple), False)

    @property
    def staged(self) -> Network | None:
        return self.refine.staged

    def halves(self) -> str:
        return "its two networks run one by one"

    def convert(self, front: torch.dtype, back: torch.dtype) -> None:
        """The Refine-Net stays as it is: what 16 bits would change of it was not tried."""
        self.base.to(front)

    def select(self, feature: Tensor, k: int, selection: str | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
        return self._select(self.base(feature), k, selection, seed)

    def _select(self, coarse: Tensor, k: int, selection: str | None, seed: int) -> tuple[Tensor, Tensor]:
        picture = output_to_image(coarse, *coarse.shape[2:])
        mask = detail(picture, self.config.patch_size * self.config.scale, self.config.halos_shared)
        return mask, select_patches(mask, k, selection or self.config.selection, seed)

    def decomposed(self, feature: Tensor) -> Tensor:
        """What refined cells are cells of."""
        refined: Tensor = self.refine(feature)
        return mean_of(self.base(feature), refined) if self.config.mean else refined

    def unclamped(self, image: Tensor, variant: str = "masked", cells: Cells = USUAL) -> Tensor:
        if variant in ("decomposed", "all"):  # which are one: cells are refined as if they were all chosen
            return self.decomposed(image)
        if variant not in VARIANTS:
            raise InputError(f"variant {variant!r} does not exist; choose one of {VARIANTS}")
        coarse = self.base(image)
        if variant == "base":
            return coarse
        rows, columns = (-(-side // self.config.patch_size) for side in image.shape[-2:])
        amount = Amount(k=cells.k, threshold=cells.threshold) or self.config.usual
        mask, indices = self._select(coarse, amount.count(rows * columns, ALL), cells.selection, cells.seed)
        refined = self.refine(image)
        if self.config.mean:
            refined = mean_of(coarse, refined)
        return self.pasted(coarse, refined, mask, indices, amount.threshold)

    def pasted(
        self, coarse: Tensor, refined: Tensor, mask: Tensor, indices: Tensor, threshold: float | None = None
    ) -> Tensor:
        """Images (B, 3, sH, sW): ``coarse`` with the cells at ``indices`` (B, K) of ``refined``."""
        p = self.config.patch_size * self.config.scale
        height, width = coarse.shape[2:]
        chosen = torch.zeros_like(mask, dtype=torch.bool).flatten(1)
        for number in range(len(mask)):
            of_image = indices[number : number + 1]
            if threshold is not None:
                of_image = above(mask[number : number + 1], of_image, threshold, static=False)
            chosen[number, of_image[0].long()] = True
        large = chosen.view_as(mask).repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None, :height, :width]
        return torch.where(large, refined, coarse)


def mean_of(one: Tensor, other: Tensor) -> Tensor:
    """Of two pictures as they are seen, in [0, 1]; NaN where a value is not finite."""
    seen = (one.clamp(0, 1) + other.clamp(0, 1)) / 2
    return seen + 0 * (one + other)


class _WithImage(nn.Module):
    """A Base-Net that returns the image as its coarse feature."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.base(image), image
