"""How layers' results are stored: in pair planes (``pairs``) or in float maps (``maps``), and chains made for either.

Networks list stages and name planes by channels; what they need of the storage is here.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.grid import mirror_indices
from .stages import Part, Stage, part_of

if TYPE_CHECKING:
    from .pairs import Grid

Mask = tuple[Tensor, Tensor]


class Spare:
    """Memory of planes, of which others can be made that are not in use at the same time."""

    def __init__(self, planes: Iterable[Stored] = ()):
        self.left = [one.data.view(-1) for one in planes]

    def room(self) -> int:
        return sum(len(memory) for memory in self.left)

    def take(self, count: int) -> Tensor | None:
        """So many numbers at a multiple of 64 bytes, or None."""
        whole = -(-count // 64) * 64
        for i, memory in enumerate(self.left):
            if len(memory) >= whole:
                self.left[i] = memory[whole:]
                return memory[:count]
        return None


class Stored(ABC):
    """``channels`` of an image of ``height`` x ``width`` with a border of zeros; ``step`` of them lie side by side.

    ``by_launches``: on a GPU, where the time of small work goes with the number of operators, not with caches.
    """

    step: ClassVar[int]
    by_launches: ClassVar[bool] = False
    data: Tensor

    def __init__(self, channels: int, height: int, width: int):
        self.channels, self.height, self.width = channels, height, width

    @property
    @abstractmethod
    def groups(self) -> int:
        """How many times ``step`` channels there are."""

    @abstractmethod
    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        """View (groups, height, width, step) of the pixels."""

    def statistics(self, grid: Grid) -> Tensor:
        """float32 (2, count, C): sums over each patch of the values of each channel, and of their squares."""
        values = grid.patches(self, 0, self.groups).flatten(2, 3).flatten(0, 1)[: grid.count, : self.channels].float()
        return torch.stack([values.sum(dim=(2, 3)), values.square().sum(dim=(2, 3))])

    def rescale(
        self, grid: Grid, x: Stored, factors: Tensor, offsets: Tensor, skip: Stored | None, slope: float
    ) -> None:
        """Become leaky(factor * x + offset + skip), factors and offsets float32 (count, C) of each patch."""
        missing = (0, self.groups * self.step - factors.shape[1], 0, grid.down * grid.across - len(factors))
        shape = grid.down, grid.across, self.groups, self.step, 1, 1
        factors, offsets = (F.pad(values, missing).view(shape) for values in (factors, offsets))
        values = torch.addcmul(offsets, grid.patches(x, 0, self.groups).float(), factors)
        if skip is not None:
            values += grid.patches(skip, 0, self.groups)
        grid.patches(self, 0, self.groups).copy_(F.leaky_relu_(values, slope) if slope != 1 else values)

    def write(self, image: Tensor, first: int = 0) -> None:
        """Fill from (channels, h, w) with h, w no more than the planes', from channel ``first`` on."""
        image = F.pad(image, (0, 0, 0, 0, 0, -len(image) % self.step))
        groups = image.unflatten(0, (-1, self.step)).permute(0, 2, 3, 1)
        begin = first // self.step
        self.inner(*image.shape[1:])[begin : begin + len(groups)].copy_(groups)

    def write_enlarged(self, image: Tensor, height: int, width: int) -> None:
        """Fill from (channels, h, w), float32, made ``height`` x ``width`` bilinearly."""
        self.write(F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0])

    def write_colours(self, image: Tensor) -> None:
        """The first three channels, from (h, w, 3); the others stay."""
        pixels = self.inner(*image.shape[:2])
        for channel in range(3):  # at once, they would be copied in steps of three numbers
            pixels[channel // self.step, ..., channel % self.step].copy_(image[..., channel])

    def extend(self, height: int, width: int) -> None:
        """Fill the rows and columns beyond an image of this size by reflection."""
        inner = self.inner()
        for axis, length in ((1, height), (2, width)):
            for i, place in enumerate(_beyond(length, inner.shape[axis])):  # index_select would copy all planes first
                inner.select(axis, length + i).copy_(inner.select(axis, place))

    def read(self) -> Tensor:
        """(channels, height, width) float32."""
        return self.inner().permute(0, 3, 1, 2).flatten(0, 1)[: self.channels].float()


@functools.lru_cache(maxsize=64)
def _beyond(length: int, padded: int) -> list[int]:
    return mirror_indices(length, padded, torch.device("cpu"))[length:].tolist()


class Chain(ABC):
    """Stages that run over an image or the patches of a grid, see ``pairs.PairChain`` and ``maps.MapChain``.

    ``spare``: planes that it is given, but neither reads nor writes, and that nothing reads when it has run.
    """

    slots: Mapping[str, object]
    spare: Sequence[str] = ()

    def at(self, part: Part | None) -> tuple[int, int]:
        """Number of a slot, and its first channel; -1 for none."""
        if part is None:
            return -1, 0
        name, first = part_of(part)
        return list(self.slots).index(name), first

    @abstractmethod
    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Stored | Tensor],
        epilogues: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, Mask] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        """Run; returns float64 (2, C) for each stage that measures."""

    @abstractmethod
    def channels_of(self, slot: str) -> int:
        """Channels of a slot, a multiple of the storage's step."""


class Storage(ABC):
    """``step``: parts of a slot begin with a multiple of so many channels. ``narrow``: values are rounded to bf16.

    ``in_place``: a layer of a chain may write to where an earlier one has read.
    """

    name: ClassVar[str]  # the type of its numbers
    step: ClassVar[int]
    narrow: ClassVar[bool]
    in_place: ClassVar[bool]
    description: ClassVar[str]

    def whole(self, channels: int) -> int:
        """Channels up to where another part may begin."""
        return -(-channels // self.step) * self.step

    @abstractmethod
    def planes(self, channels: int, height: int, width: int, spare: Spare | None = None) -> Stored:
        """Planes of zeros, or where ``spare`` has room for them, of what is there."""

    @abstractmethod
    def chain(self, stages: Sequence[Stage], external: Sequence[str], spare: Sequence[str] = ()) -> Chain: ...

    @abstractmethod
    def gather(
        self, grid: Grid, out: Stored, x: Stored, cells: tuple[int, int], indices: Tensor, halo: int, repeated: int
    ) -> None:
        """Cells at ``indices`` of ``x``, (rows, columns) of them, with ``halo``, into the patches of ``grid``.

        Beyond the image are zeros; in channels from ``repeated`` on, the nearest pixels, where that is not -1.
        """

    @abstractmethod
    def room_bytes(
        self,
        chains: Iterable[Chain],
        height: int,
        width: int,
        images: bool = True,
        planes: Mapping[str, Stored] | None = None,
        side: int = 0,
    ) -> int:
        """Memory that these chains take for ``images`` or patches of this size, beside what they are given.

        ``planes``: those that are spare, by their names. ``side``: of each patch, where they are square.
        """

    @abstractmethod
    def kernels(self) -> str:
        """What runs the convolutions: an instruction set, or the backend that MGA_BACKEND forces."""
