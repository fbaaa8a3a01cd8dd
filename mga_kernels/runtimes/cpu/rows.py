"""Which rooms (``alone.rooms``) the maps between the layers of a chain have, by what its stages read and write."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ...alone.layout import PART_CHANNELS, groups_of
from ...alone.rooms import Place, Room, Rooms, band_of, rooms_of
from .stages import Part, Stage, part_of


@dataclass
class Slot:
    """``inset``: pixels that patches have lost."""

    scale: int = 1
    inset: int = 0
    groups: int = 0


class Use(NamedTuple):
    """Of ``groups`` groups of a slot by a stage, of ``reach`` rows above and below its own."""

    slot: str
    first: int
    groups: int
    reach: int

    def meets(self, other: Use) -> bool:
        apart = self.first >= other.first + other.groups or other.first >= self.first + self.groups
        return self.slot == other.slot and not apart


def slots_of(stages: Sequence[Stage], external: Collection[str]) -> dict[str, Slot]:
    """What stages read and write, by its names."""
    slots = {name: Slot() for name in external}
    for stage in stages:
        x, (out, first) = slots[part_of(stage.x)[0]], part_of(stage.out)
        slot = slots.setdefault(out, Slot())
        slot.scale, slot.inset = x.scale * stage.factor, x.inset * stage.factor + stage.crop
        slot.groups = max(slot.groups, groups_of(first + stage.layer.channels))
    return slots


class Rows:
    """Of a chain. ``sides``: of the tiles of each stage. ``rooms``: of each slot that is not external, by its name.

    ``of_patches``: some stages write patches only, and nothing between them or where they have lost their border.
    """

    def __init__(
        self, stages: Sequence[Stage], external: Collection[str], sides: Sequence[int], of_patches: bool = False
    ):
        self.stages, self.external, self.sides = list(stages), list(external), list(sides)
        self.of_patches = of_patches
        self.small: int | None = None  # bytes of maps of all rows that are worth no bands, None for SMALL
        self._bands: dict[tuple[int, int, int | None], int] = {}
        self.slots = slots_of(self.stages, self.external)
        self.inner = [name for name in self.slots if name not in self.external]

    @cached_property
    def shared(self) -> dict[str, Room]:
        """Rooms layer by layer: slots that are not in use at the same time have the same one."""
        last_read = {part_of(part)[0]: i for i, stage in enumerate(self.stages) for part in _parts_read(stage)}
        free: dict[Room, list[Room]] = {}  # by the first of each kind
        rooms: dict[str, Room] = {}
        for i, stage in enumerate(self.stages):
            name = part_of(stage.out)[0]
            if name not in self.external and name not in rooms:
                waiting = free.setdefault(self._room(name, 0), [])
                rooms[name] = waiting.pop() if waiting else self._next_room(name, set(rooms.values()))
            for other, end in last_read.items():
                if end == i and other not in self.external:
                    free.setdefault(self._room(other, 0), []).append(rooms[other])
        return rooms

    def _room(self, name: str, number: int) -> Room:
        slot = self.slots[name]
        return Room(slot.groups, slot.scale, number, slot.inset if self.of_patches else 0)

    def _next_room(self, name: str, rooms: Collection[Room]) -> Room:
        first = self._room(name, 0)
        return self._room(name, sum(room._replace(number=0) == first for room in rooms))

    @cached_property
    def own(self) -> dict[str, Room]:
        """Rooms in bands: each slot has its own."""
        rooms: dict[str, Room] = {}
        for name in self.inner:
            rooms[name] = self._next_room(name, rooms.values())
        return rooms

    @cached_property
    def leads(self) -> list[int]:
        """By how many rows of the image each stage runs ahead of the last one."""
        leads = [0] * len(self.stages)
        most = max(self.sides) + max(stage.layer.size // 2 for stage in self.stages)  # that any two are apart
        for i in reversed(range(len(self.stages))):
            for j in range(i + 1, len(self.stages)):
                if leads[j] + most > leads[i]:  # else it changes nothing, as for most pairs of hundreds of stages
                    leads[i] = max(leads[i], leads[j] + max(self._apart(i, j), default=0))
        return leads

    def _apart(self, i: int, j: int) -> list[int]:
        """By how many rows of the image stage i must be ahead of a later stage j, for each map that they both use."""
        earlier, later = self.stages[i], self.stages[j]
        scale, rounded = self.slots[part_of(later.x)[0]].scale, self.sides[j] - 1
        read = [use for use in reads(later) if use.meets(written(earlier))]
        overwritten = [use for use in [*reads(earlier), written(earlier)] if use.meets(written(later))]
        return [
            *(math.ceil((rounded + use.reach) / scale) for use in read),
            *(math.ceil((later.factor * rounded + use.reach) / (later.factor * scale)) for use in overwritten),
        ]

    @cached_property
    def places(self) -> dict[str, Place]:
        """Of each slot that is not external."""
        return {name: Place(self.shared[name], self.own[name], self._beyond_band(name)) for name in self.inner}

    def _beyond_band(self, name: str) -> int:
        scale = self.slots[name].scale
        lowest, highest, more = scale * max(self.leads), 0, 0
        for lead, side, stage in zip(self.leads, self.sides, self.stages, strict=True):
            if part_of(stage.out)[0] == name:
                highest = max(highest, scale * lead + (side - 1) * stage.factor)
                lowest = min(lowest, scale * lead)
            for use in reads(stage):
                if use.slot == name:
                    lowest = min(lowest, scale * lead - use.reach)
                    more = max(more, 2 * side if stage.stride == 2 else 0)
        return highest - lowest + more

    def rooms(self, height: int, band: int) -> Rooms:
        """The room of each slot that is not external, and its rows."""
        return rooms_of(self.places, height, band)

    def kept(self, height: int) -> Rooms:
        """A room for each slot, of all rows, so that every map is still there after a run."""
        return {name: (self.own[name], height * self.slots[name].scale) for name in self.inner}

    def band(self, height: int, width: int) -> int:
        """The rows of a band, or 0 where maps of all rows need no more memory, or little."""
        key = height, width, self.small
        if key not in self._bands:
            self._bands[key] = band_of(self.places, *key)
        return self._bands[key]


def _parts_read(stage: Stage) -> list[Part]:
    return [part for part in (stage.x, stage.skip, stage.also, stage.parts) if part is not None]


def reads(stage: Stage) -> list[Use]:
    """What a stage looks at."""
    reach = stage.layer.size // 2
    slot, first = part_of(stage.x)
    uses = [Use(slot, groups_of(first), groups_of(stage.layer.inputs), reach)]
    for part in (stage.skip, stage.also):
        if part is not None:
            slot, first = part_of(part)
            uses.append(Use(slot, groups_of(first), groups_of(stage.layer.channels), 0))
    if stage.parts is not None:
        uses.append(Use(stage.parts, 0, groups_of(PART_CHANNELS), 3))
    return uses


def written(stage: Stage) -> Use:
    slot, first = part_of(stage.out)
    return Use(slot, groups_of(first), groups_of(stage.layer.channels), 0)
