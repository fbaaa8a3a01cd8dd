"""Networks that are a convolution, a trunk, and what follows it, which reads the planes that the trunk leaves."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from torch import Tensor

from .layers import Conv
from .pairs import Grid
from .plan import Base, Buffers, PairWeights, PlaneSizes, Refine
from .stages import Stage
from .storage import Stored


class Trunk(Protocol):
    """The blocks of a half, which work in ``planes``, beginning with plane "x".

    ``end``: stages that read planes ``whole`` when it has run, and write "out", the feature.
    """

    planes: PlaneSizes
    whole: list[str]
    end: list[Stage]

    def __call__(self, area: Grid, x: Stored, buffers: Buffers) -> None: ...


class StoredTrunkWeights(PairWeights[Base, Refine]):
    """A network's own class says what its trunks are, and what leads from "out" to "picture"."""

    @abstractmethod
    def trunk_of(self, half: Base | Refine) -> Trunk: ...

    @abstractmethod
    def first(self, base: Base) -> Conv:
        """The first convolution, of an image in 0..255."""

    @abstractmethod
    def base_upsampler(self, base: Base) -> list[Stage]:
        """From "out" to "picture"."""

    @abstractmethod
    def refine_upsampler(self, refine: Refine) -> list[Stage]:
        """The same of patches, whose halo is used up."""

    def prepare_base(self, base: Base) -> None:
        self.trunk = self.trunk_of(base)
        self.base_planes = {**self.trunk.planes, **self.shallow}
        self.head = self.chain([Stage(self.first(base), "image", "x")], ["image", "x"])
        self.end = self.chain(self.trunk.end, [*self.trunk.whole, "out"])
        stages = [*self.trunk.end, *self.base_upsampler(base)]
        spare = [name for name in self.trunk.planes if name not in self.trunk.whole]
        self.end_in_picture = self.chain(stages, [*self.trunk.whole, "out", "picture"], spare)

    def prepare_refine(self, refine: Refine) -> None:
        self.refine_trunk = self.trunk_of(refine)
        self.refine_planes = self.refine_trunk.planes
        stages = [*self.refine_trunk.end, *self.refine_upsampler(refine)]
        self.refine_end = self.chain(stages, [*self.refine_trunk.whole, "picture"])

    def base(
        self, area: Grid, image: Stored, feature: Stored, picture: Tensor | None, rgb: Tensor, buffers: Buffers
    ) -> None:
        shallow = buffers.get("shallow", feature)
        self.head(area, {"image": image, "x": shallow})
        self.trunk(area, shallow, buffers)
        given = {**buffers, "x": shallow, "out": feature}
        if picture is None:
            self.end(area, given)
        else:
            added = rgb if self.adds_image else None
            self.end_in_picture(area, {**given, "picture": picture}, added=added, gain=self.gain)

    def refine(self, area: Grid, x: Stored, pictures: Tensor, buffers: Buffers) -> None:
        self.refine_trunk(area, x, buffers)
        self.refine_end(area, {**buffers, "x": x, "picture": pictures}, gain=self.gain)
