"""Float maps: the layout in which every CPU convolves in float32, and chains in it (csrc/maps/layout.h).

A 3x3 kernel is computed in tiles, with a quarter of the products, and a 5x5 kernel in some with a sixth, where large
tiles are good enough. The layers of a chain run one after the other over whole maps, or together in bands of rows,
whichever needs less memory: see ``rows`` for how much of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from torch import Tensor

from ... import _native
from ...alone.layout import BEFORE, GROUP, groups_of, map_pitch
from ...alone.rooms import Room, Rooms, bytes_of
from ...ops import (
    convolve_maps_,
    map_gather_,
    map_grid_scale_,
    map_grid_statistics,
    map_interpolate_,
)
from ...ops.convolution.map_layout import empty_map, is_picture
from ...records import FrameRecord, LayerRecord, MapRecord
from ...system.allocator import huge_pages
from .apart import apart
from .blocks import in_blocks
from .filled import LARGE, TILE, filling, tile_of
from .layers import Conv, Scale
from .packing import adding, pack, pack_scale
from .pairs import Grid, forced_backend
from .rows import Rows, Slot, slots_of
from .stages import Stage, part_of
from .storage import Chain, Mask, Spare, Storage, Stored

if TYPE_CHECKING:
    from .changes import Changes
    from .regions import Regions

SIDE = 4  # of the tiles of layers that are computed plainly


class Map(Stored):
    """``data`` float32 (height, ceil(channels / 8), pitch, 8)."""

    step = GROUP

    def __init__(self, channels: int, height: int, width: int, spare: Spare | None = None):
        super().__init__(channels, height, width)
        shape = height, groups_of(channels), map_pitch(width), GROUP
        there = None if spare is None else spare.take(math.prod(shape))
        self.data = empty_map(channels, height, width, huge_pages) if there is None else there.view(shape)

    @property
    def groups(self) -> int:
        return self.data.shape[1]

    def clear_borders(self) -> None:
        """Zeros on both sides of the pixels, where memory has been in use for something else."""
        _clear_borders(self.data, self.width)

    def inner(self, height: int | None = None, width: int | None = None) -> Tensor:
        view = self.data[: height or self.height, :, BEFORE : BEFORE + (width or self.width)]
        return view.transpose(0, 1)

    def write_enlarged(self, image: Tensor, height: int, width: int) -> None:
        map_interpolate_(self.data, 0, image, height, width)

    def statistics(self, grid: Grid) -> Tensor:
        sums = map_grid_statistics(self.data, self.groups, grid.count, *grid.size, grid.across)
        return sums[..., : self.channels]

    def rescale(
        self, grid: Grid, x: Stored, factors: Tensor, offsets: Tensor, skip: Stored | None, slope: float
    ) -> None:
        missing = (0, -self.channels % GROUP)
        factors, offsets = (F.pad(values, missing) for values in (factors, offsets))
        skipped = None if skip is None else skip.data
        map_grid_scale_(self.data, x.data, skipped, factors, offsets, *grid.size, grid.across, slope)


class MapChain(Chain):
    """``stages`` in their order. The tensors of ``external`` slots come with each call; the others are in rooms.

    A room is a map of a grid, which the chains that run over it share; those of a chain with ``spare`` planes lie in
    these. Whole images are convolved ``in_blocks`` where that is worth it; too much of a patch is its border.

    ``tiles``: for each stage the side of tiles of 3x3 kernels, by default TILE, see ``tile_of``. ``side``: it runs over
    patches of so many pixels a side, whose tiles begin where the patches do if they fill them; 0 for a chain that has
    others for that. ``transformed``: weights are kept as tiles need them, and not transformed at each call.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        external: Sequence[str],
        tiles: Sequence[int] | None = None,
        spare: Sequence[str] = (),
        side: int = 0,
        transformed: bool = True,
    ):
        self.stages, self.external, self.spare = list(stages), list(external), tuple(spare)
        self.tiles, self.side, self.transformed = list(tiles or [TILE] * len(stages)), side, transformed
        divided = None if side else in_blocks(stages)
        in_parts = [*self.tiles, self.tiles[-1]]
        self.in_blocks = None if divided is None else self._other(divided, in_parts, spare)
        self._of_patches: dict[int, MapChain] = {}
        self.slots: dict[str, Slot] = slots_of(self.stages, external)
        self.filled = [
            filling(stage, self.slots, side, (tile, TILE)) for stage, tile in zip(self.stages, self.tiles, strict=True)
        ]
        found = [
            filled.tile if filled else tile_of(stage.layer, stage.stride, tile)
            for stage, tile, filled in zip(self.stages, self.tiles, self.filled, strict=True)
        ]
        self.layers = [
            adding(pack(stage.layer, stage.enlarge, tile, transformed), stage)
            for stage, tile in zip(self.stages, found, strict=True)
        ]
        sides = [
            filled.tile + filled.between if filled else layer.tile or SIDE
            for layer, filled in zip(self.layers, self.filled, strict=True)
        ]
        self.rows = Rows(self.stages, external, sides, of_patches=bool(side))
        measured = [i for i, stage in enumerate(self.stages) if stage.measure]
        self.records = [self._record(i, measured.index(i) if i in measured else -1) for i in range(len(self.stages))]

    def _other(
        self, stages: Sequence[Stage], tiles: Sequence[int], spare: Sequence[str] = (), side: int = 0
    ) -> MapChain:
        return MapChain(stages, self.external, tiles, spare, side, self.transformed)

    def _record(self, number: int, statistics: int) -> LayerRecord:
        stage, packed = self.stages[number], self.layers[number]
        (x, x_channel), (out, out_channel) = self.at(stage.x), self.at(stage.out)
        (skip, skip_channel), (also, also_channel) = self.at(stage.skip), self.at(stage.also)
        filled = self.filled[number]
        return LayerRecord(
            x=x,
            x_channel=x_channel,
            inputs=stage.layer.inputs,
            out=out,
            out_channel=out_channel,
            outputs=packed.outputs,
            skip=skip,
            skip_channel=skip_channel,
            also=also,
            also_channel=also_channel,
            size=stage.layer.size,
            stride=stage.stride,
            tile=packed.tile,
            shuffle=stage.factor,
            gate=2 if stage.attention else int(stage.gate),
            activation=int(stage.silu),
            statistics=statistics,
            parts=self.at(stage.parts)[0],
            lead=self.rows.leads[number],
            patch=filled.patch if filled else 0,
            step=filled.step if filled else 0,
            inset=filled.inset if filled else 0,
        )

    def of_patches(self, side: int) -> MapChain:
        """The same layers over patches of so many pixels a side."""
        if self.side:
            return self
        if side not in self._of_patches:
            self._of_patches[side] = self._other(self.stages, self.tiles, self.spare, side)
        return self._of_patches[side]

    @cached_property
    def apart(self) -> MapChain:
        """The same layers, of which none writes over what another has made; itself where that cannot be."""
        stages = apart(self.stages, self.external)
        if stages is None:
            return self
        chain = self._other(stages, self.tiles)
        chain.apart = chain
        return chain

    def rows_of(self, images: bool, side: int = 0) -> Rows:
        """Of whole images, or of patches of so many pixels a side, 0 for any."""
        if images:
            return self.rows if self.in_blocks is None else self.in_blocks.rows
        return self.of_patches(side).rows if side else self.rows

    def channels_of(self, slot: str) -> int:
        return self.slots[slot].groups * GROUP

    def __call__(
        self,
        grid: Grid,
        given: Mapping[str, Stored | Tensor],
        epilogues: Mapping[int, Tensor] | None = None,
        masks: Mapping[str, Mask] | None = None,
        added: Tensor | None = None,
        gain: float = 1.0,
    ) -> list[Tensor]:
        regions = cast("Regions | Changes | None", grid.regions)
        if self.in_blocks is not None and grid.is_image and regions is None:
            return self.in_blocks(grid, given, epilogues, masks, added, gain)
        if grid.side and not self.side:
            return self.of_patches(grid.side)(grid, given, epilogues, masks, added, gain)
        if regions is not None and regions.apart and self.apart is not self:
            return self.apart(grid, given, epilogues, masks, added, gain)
        records: Sequence[LayerRecord] = self.records
        lists: list[Tensor] = []
        kept = None
        if regions is not None:
            found = regions.lists_of(self.rows, given, records)
            if found is None:
                return []
            records, lists, kept = found
        elif not grid.is_image:
            records, lists = self._around_gaps(grid, given)
        band = self.rows.band(grid.height, grid.width) if kept is None else 0
        rooms = self.rows.rooms(grid.height, band) if kept is None else self.rows.kept(grid.height)
        spare = [given[name] for name in self.spare] if regions is None else []
        lenders = [one for one in spare if isinstance(one, Map)]
        own_rooms = grid.rooms.within(lenders) if lenders else grid.rooms
        room_maps = own_rooms.maps if kept is None else kept.maps
        frame = FrameRecord(grid.height, grid.width)
        tensors: list[Tensor] = []
        maps: list[MapRecord] = []
        used: list[Mask] = []
        for name, slot in self.slots.items():
            one = given.get(name) if kept is None else kept.instead(given.get(name))
            if one is None:
                tensor = _room(room_maps, grid.width, *rooms[name], own_rooms.spare)
                if lenders:
                    _clear_borders(tensor, grid.width * slot.scale)
            else:
                tensor = one if isinstance(one, Tensor) else one.data
            picture = is_picture(tensor)
            if picture:
                frame = grid.frame(slot.scale, slot.inset)
            plain = picture or (tensor.ndim == 3 and tensor.shape[1] != grid.height * slot.scale)
            plain |= name == self.stages[-1].parts  # which are not zero just beside the pixels of the mask
            mask = (masks or {}).get(name) or (None if plain else grid.mask(slot.scale, slot.inset))
            tensors.append(tensor)
            maps.append(MapRecord(slot.scale, -1 if mask is None else len(used)))
            if mask is not None:
                used.append(mask)
        layers = list(self.layers)
        for number, epilogue in (epilogues or {}).items():
            scale = self.stages[number].layer
            assert isinstance(scale, Scale)
            layers[number] = adding(pack_scale(scale, epilogue), self.stages[number])
        measured = convolve_maps_(
            tensors,
            maps,
            used,
            [layer.weight for layer in layers],
            [layer.epilogue for layer in layers],
            records,
            lists,
            replace(frame, band=band),
            gain,
            added,
        )
        for lender in lenders:
            lender.clear_borders()
        return measured

    def _around_gaps(self, grid: Grid, given: Mapping[str, Stored | Tensor]) -> tuple[list[LayerRecord], list[Tensor]]:
        """The records, with lists of the tiles that patches lie in: what is between them stays zero.

        Of pictures, of which nothing else is read, the tiles of what they show.
        """
        records: list[LayerRecord] = []
        numbers: dict[tuple[int, int, int], int] = {}
        lists: list[Tensor] = []
        for record, stage in zip(self.records, self.stages, strict=True):
            name = part_of(stage.out)[0]
            pictures = given.get(name)
            shown = isinstance(pictures, Tensor) and is_picture(pictures)
            inset = self.slots[name].inset // stage.factor if shown else 0
            how = record.tile or SIDE, self.slots[part_of(stage.x)[0]].scale, inset
            tiles = grid.tiles(*how) if stage.stride == 1 and not record.patch else None
            if tiles is not None and how not in numbers:
                numbers[how] = len(lists)
                lists.append(tiles)
            records.append(record if tiles is None else replace(record, tiles=numbers[how]))
        return records, lists


def _room(maps: dict[Room, Tensor], width: int, room: Room, rows: int, spare: Spare | None) -> Tensor:
    tensor = maps.get(room)
    if tensor is None or len(tensor) < rows:
        tensor = maps[room] = Map(room.groups * GROUP, rows, width * room.scale, spare).data
    return tensor


def _clear_borders(data: Tensor, width: int) -> None:
    """Zeros beside the ``width`` pixels of each row of a map."""
    data[:, :, :BEFORE].zero_()
    data[:, :, BEFORE + width :].zero_()


def _rooms_beside(rooms: Rooms, planes: Iterable[Stored], width: int) -> Rooms:
    """Those that no spare planes have memory for."""
    spare, lent = Spare(planes), set()
    for name, (room, rows) in rooms.items():
        if room not in lent and spare.take(bytes_of([{name: (room, rows)}], width) // 4) is not None:
            lent.add(room)
    return {name: (room, rows) for name, (room, rows) in rooms.items() if room not in lent}


class Maps(Storage):
    """Float maps. ``large``: which of the layers in tiles, in whichever chains, is the first to have large ones, as all
    behind it have; None for none. ``transformed``: see ``MapChain``."""

    name, step, narrow, in_place = "float32", GROUP, False, True
    description = "float32, in convolutions of our own"

    def __init__(self, large: int | None = None, transformed: bool = True):
        self.large, self.transformed = large, transformed
        self.tiled = 0  # layers so far

    def planes(self, channels: int, height: int, width: int, spare: Spare | None = None) -> Map:
        return Map(channels, height, width, spare)

    def chain(self, stages: Sequence[Stage], external: Sequence[str], spare: Sequence[str] = ()) -> MapChain:
        tiles = [self._tile(stage) for stage in stages]
        return MapChain(stages, external, tiles, spare, transformed=self.transformed)

    def _tile(self, stage: Stage) -> int:
        """The side of the tiles of the next stage."""
        number, layer = self.tiled, stage.layer
        if isinstance(layer, Conv):
            self.tiled += tile_of(layer, stage.stride, LARGE) > 0
        return TILE if self.large is None or number < self.large else LARGE

    def gather(
        self, grid: Grid, out: Stored, x: Stored, cells: tuple[int, int], indices: Tensor, halo: int, repeated: int
    ) -> None:
        p = grid.size[0] - 2 * halo
        height, width = (p * length for length in cells)
        group = repeated // GROUP if repeated >= 0 else -1
        map_gather_(out.data, x.data, out.groups, height, width, indices, p, halo, grid.across, group)

    def room_bytes(
        self,
        chains: Iterable[Chain],
        height: int,
        width: int,
        images: bool = True,
        planes: Mapping[str, Stored] | None = None,
        side: int = 0,
    ) -> int:
        shared: list[Rooms] = []
        for chain in chains:
            assert isinstance(chain, MapChain)
            rows = chain.rows_of(images, side)
            rooms = rows.rooms(height, rows.band(height, width))
            shared.append(_rooms_beside(rooms, [planes[name] for name in chain.spare] if planes else [], width))
        return bytes_of(shared, width)

    def kernels(self) -> str:
        return forced_backend() or _native.map_kernels()[0]
