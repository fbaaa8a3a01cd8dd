"""Pixel maps: the layout in which a GPU convolves, and chains in it, of which every stage is one launch.

They have the interface of the CPU's storages, so that what networks say of their layers (``runtimes.cpu.plan``) is all
that is needed to run them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.layout import GROUP
from ...alone.rooms import Room
from ...ops import convolve_pixels_, gather_patches
from ...ops.convolve_pixels.layout import STEP, pack_pixel_weight, padded, tiles_of, whole
from ..cpu.layers import Conv, Layer, Scale
from ..cpu.pairs import Grid
from ..cpu.rows import Rows, Slot
from ..cpu.stages import Part, Stage, part_of
from ..cpu.storage import Chain, Mask, Spare, Storage, Stored
from .regions import Listed, Lists

# Activations of ``convolve_pixels_``. All layers have slopes, those of 1 too: whether some bend would be a value of the
# device, and the kernel without them spills on sm_100.
LEAKY, SILU = 1, 2
ENDLESS = 12 << 20  # the period of a single image of any size: kernels are compiled for a period


class PixelMap(Stored):
    """``data`` (height, width, channels up to a multiple of 16)."""

    step, by_launches = STEP, True

    def __init__(self, channels: int, height: int, width: int, dtype: torch.dtype):
        super().__init__(channels, height, width)
        self.data = torch.zeros(height, width, whole(channels), dtype=dtype)

    @property
    def groups(self) -> int:
        return self.data.shape[2] // STEP

    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        view = self.data[: height or self.height, : width or self.width]
        return view.unflatten(2, (self.groups, STEP)).permute(2, 0, 1, 3)

    def write_colours(self, image: Tensor) -> None:
        """As of ``Stored``, in one launch instead of three."""
        self.data[: image.shape[0], : image.shape[1], :3].copy_(image)


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer prepared for ``convolve_pixels_``; ``outputs`` of a phase of its shuffle."""

    weight: Tensor
    epilogue: Tensor
    outputs: int


_packed: WeakKeyDictionary[Layer, dict[tuple, Packed]] = WeakKeyDictionary()


def pack(layer: Layer, dtype: torch.dtype, enlarge: int = 1) -> Packed:
    """The layer, which several chains may have, packed once; ``enlarge``: see ``Stage``."""
    known, how = _packed.setdefault(layer, {}), (dtype, enlarge)
    if how not in known:
        known[how] = scale(layer, layer.epilogue) if isinstance(layer, Scale) else _conv(layer, dtype, enlarge)
    return known[how]


def scale(layer: Scale, epilogue: Tensor) -> Packed:
    """Factors, offsets and slopes (3, C), which may come with each call."""
    factors, offsets, slopes = F.pad(epilogue, (0, padded(whole(layer.channels)) - layer.channels))
    ones = torch.ones_like(offsets)
    rows = torch.stack([offsets, slopes, ones, ones, factors])
    return Packed(factors[:0], rows, whole(layer.channels))


def _conv(layer: Conv, dtype: torch.dtype, enlarge: int) -> Packed:
    weight, (bias, slope, shift) = layer.weight.float(), layer.epilogue
    assert shift.is_meta or not shift.any(), "what is shifted is for pair planes"
    s = layer.shuffle * enlarge
    channels = len(weight) // s**2
    kept = channels if enlarge > 1 or layer.floats else whole(channels)
    order = torch.arange(len(weight), device=weight.device).view(channels, s * s).T  # phase, channel
    order = F.pad(order, (0, kept - channels), value=-1).flatten()
    present = order >= 0
    weight = weight[order.clamp(min=0)] * present[:, None, None, None]
    rows = torch.stack([bias, slope])[:, order.clamp(min=0)] * present
    packed, factors = pack_pixel_weight(weight, dtype)
    rows = F.pad(rows, (0, len(factors) - rows.shape[1]))
    ones = torch.ones_like(factors)
    return Packed(packed, torch.stack([*rows, ones, ones, factors]), kept)


def _adding(packed: Packed, stage: Stage) -> Packed:
    """With the stage's factors of what is added."""
    if stage.factors == (1.0, 1.0):
        return packed
    epilogue = packed.epilogue.clone()
    epilogue[2], epilogue[3] = stage.factors
    return replace(packed, epilogue=epilogue)


class PixelChain(Chain):
    """``stages`` in their order. The tensors of ``external`` slots come with each call; the others are in rooms.

    A room is a map of a grid, which the chains that run over it share.
    """

    def __init__(self, storage: Pixels, stages: Sequence[Stage], external: Sequence[str]):
        self.storage, self.stages, self.external = storage, list(stages), list(external)
        self.layers = [_adding(pack(stage.layer, storage.dtype, stage.enlarge), stage) for stage in self.stages]
        self.rows = Rows(self.stages, external, [1] * len(self.stages))
        self.slots: dict[str, Slot] = self.rows.slots

    def channels_of(self, slot: str) -> int:
        return whole(self.slots[slot].groups * GROUP)

    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Stored | Tensor],
        epilogues: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, Mask] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        assert not masks, "masks of one's own are for pair planes"
        layers = list(self.layers)
        for number, epilogue in (epilogues or {}).items():
            layer = self.stages[number].layer
            assert isinstance(layer, Scale)
            layers[number] = _adding(scale(layer, epilogue), self.stages[number])
        regions = cast(Lists | None, grid.regions)
        lists = None if regions is None else regions.lists_of(self.rows, given)
        if regions is not None and lists is None:
            return []
        measured = []
        for number, (stage, packed) in enumerate(zip(self.stages, layers, strict=True)):
            listed = None if lists is None else lists[number]
            sums = self._run(stage, packed, grid, given, added, gain, listed)
            if sums is not None:
                measured.append(sums.sum(dim=0, dtype=torch.float64)[:, : stage.layer.channels])
        return measured

    def _run(
        self,
        stage: Stage,
        packed: Packed,
        grid: Grid,
        given: Mapping[str, Stored | Tensor],
        added: Tensor | None,
        gain: float,
        listed: Listed | None,
    ) -> Tensor | None:
        size = stage.layer.size
        x = self._part(grid, given, stage.x, whole(stage.layer.inputs))
        out = self._part(grid, given, stage.out, packed.outputs)
        picture = out.dtype == torch.uint8
        sums = None
        if stage.measure:
            sums = x.new_empty(*_tiles(x), 2, packed.outputs, dtype=torch.float32).flatten(0, 1)
        convolve_pixels_(
            out,
            x,
            packed.weight,
            packed.epilogue,
            None if stage.skip is None else self._part(grid, given, stage.skip, packed.outputs),
            None if stage.also is None else self._part(grid, given, stage.also, packed.outputs),
            tiles=None if listed is None else listed.tiles,
            sums=sums,
            finite=self.storage.finite if picture else None,
            added=added if picture else None,
            count=None if listed is None else listed.length,
            **(self._chosen(stage, grid) if picture else {}),
            size=size,
            stride=stage.stride,
            shuffle=stage.factor,
            gate=2 if stage.attention else int(stage.gate),
            activation=SILU if stage.silu else LEAKY,
            cells=_cells(grid, self.slots[part_of(stage.out)[0]], picture),
            gain=gain,
        )
        return sums

    def _chosen(self, stage: Stage, grid: Grid) -> dict[str, Any]:
        """The cells of which a picture shows what the stage makes, where that is not all."""
        regions = cast(Lists | None, grid.regions)
        if regions is None or regions.cells is None:
            return {}
        return {"chosen": regions.cells, "cell": regions.cell * self.slots[part_of(stage.x)[0]].scale}

    def _part(self, grid: Grid, given: Mapping[str, Stored | Tensor], part: Part, channels: int) -> Tensor:
        """(H, W, channels) of a slot, from its part's first channel on; float planes as such; pictures as they are."""
        name, first = part_of(part)
        one = given.get(name)
        if isinstance(one, Tensor):
            return one if one.dtype == torch.uint8 else one.permute(1, 2, 0)
        data = self._room(grid, name) if one is None else one.data
        slot = self.slots[name]
        return data[: grid.height * slot.scale, : grid.width * slot.scale, first : first + channels]

    def _room(self, grid: Grid, name: str) -> Tensor:
        room = self.rows.shared[name]
        if room not in grid.rooms.maps:
            height, width = grid.height * room.scale, grid.width * room.scale
            grid.rooms.maps[room] = self.storage.planes(room.groups * GROUP, height, width).data
        return grid.rooms.maps[room]


def _tiles(x: Tensor) -> tuple[int, int]:
    return tiles_of(*x.shape[:2])


def _cells(grid: Grid, slot: Slot, picture: bool) -> list[int]:
    """Where patches lie in a slot; none for an image that has lost nothing at its border."""
    ends = () if grid.regions is None else cast(Lists, grid.regions).ends
    if ends:  # of a picture nobody looks at what lies behind them
        return [] if picture else [*(number * slot.scale for number in ends), 1]
    alone = grid.down * grid.across == 1
    if alone and not slot.inset:
        return []
    height, width = (side * slot.scale for side in grid.size)
    periods = (ENDLESS, ENDLESS) if alone else (height + slot.scale, width + slot.scale)
    return [*periods, slot.inset, height - slot.inset, width - slot.inset, grid.across]


class Pixels(Storage):
    """Pixel maps in float16 or bfloat16; in float32 for tests. ``finite``: a bool in which pictures tell of others."""

    name, step, narrow, in_place = "pixels", STEP, False, False
    finite: Tensor | None = None

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    @property
    def description(self) -> str:  # type: ignore[override]
        return f"{str(self.dtype).removeprefix('torch.')} with float32 sums, in convolutions of our own"

    def planes(self, channels: int, height: int, width: int, spare: Spare | None = None) -> PixelMap:
        return PixelMap(channels, height, width, self.dtype)

    def chain(self, stages: Sequence[Stage], external: Sequence[str], spare: Sequence[str] = ()) -> PixelChain:
        return PixelChain(self, stages, external)

    def gather(
        self, grid: Grid, out: Stored, x: Stored, cells: tuple[int, int], indices: Tensor, halo: int, repeated: int
    ) -> None:
        p = grid.size[0] - 2 * halo
        feature = x.data.permute(2, 0, 1)[None]
        taken = gather_patches(feature, indices, p, halo)
        if repeated >= 0:
            taken[:, repeated:] = _nearest(x.data[..., repeated:], cells, indices, p, halo)
        missing = grid.down * grid.across - len(taken)
        taken = F.pad(taken, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else taken
        target = grid.patches(out, 0, out.groups)
        target.copy_(taken.unflatten(1, (out.groups, STEP)).unflatten(0, (grid.down, grid.across)))

    def room_bytes(
        self,
        chains: Iterable[Chain],
        height: int,
        width: int,
        images: bool = True,
        planes: Mapping[str, Stored] | None = None,
        side: int = 0,
    ) -> int:
        rooms = {room for chain in chains if isinstance(chain, PixelChain) for room in chain.rows.shared.values()}
        return sum(self._bytes(room, height, width) for room in rooms)

    def _bytes(self, room: Room, height: int, width: int) -> int:
        return self.dtype.itemsize * whole(room.groups * GROUP) * room.scale**2 * height * width

    def kernels(self) -> str:
        return "Triton"


def _nearest(data: Tensor, cells: tuple[int, int], indices: Tensor, p: int, halo: int) -> Tensor:
    """(n, C, p + 2h, p + 2h) of cells of (H, W, C), which beyond the image goes on as its border is."""
    rows, columns = cells
    place = torch.arange(-halo, p + halo, device=data.device)
    index = indices.flatten().long().clamp(min=0)
    y = ((index // columns)[:, None] * p + place).clamp(0, rows * p - 1)
    x = ((index % columns)[:, None] * p + place).clamp(0, columns * p - 1)
    return data[y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
