"""The next frame of a film: chains over whole images are run for what changed only, in the tiles of float maps.

What a tile of a 3x3 kernel makes depends, to the last bit, on all that its transformation adds up: a pixel that changes
inside of it changes all of it, one just beyond it the row or column beside; of a 5x5 kernel, one just beyond it changes
all of it, the next one the row or column. So changes are followed from the image to the picture.

Where there is memory for it, every layer has a map of its own, which holds what the layer made of the last frame: then
only what changes is computed, layer by layer. Otherwise what is needed for the tiles of the picture that change is
followed back to the image, by the same rule; elsewhere the maps hold what they happen to.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...alone.rooms import Room, bytes_of
from ...errors import InputError
from ...networks.layers import pad_by_reflection
from ...records import LayerRecord
from .boxes import Boxes, Marks, any_of, boxes_of
from .maps import Map, MapChain
from .rows import Rows, Use, reads, written
from .stages import part_of
from .storage import Stored

if TYPE_CHECKING:
    from .plan import PairPlan

PART_OF_ROOM = 0.25  # of the memory that is left, which maps may take that are kept from frame to frame
Group = tuple[str, int]  # a slot, and a group of channels in it
Found = dict[Group, Boxes]  # nothing of groups that are missing


@dataclass(frozen=True)
class _Layer:
    """A layer of a call: what it reads, ``x`` first, and writes, on tiles of ``side`` pixels; ``scale`` of what it
    reads, ``factor`` by which its result is larger. ``picture``: that is what all is for."""

    record: LayerRecord
    reads: list[Use]
    written: Use
    side: int
    scale: int
    factor: int
    picture: bool

    def size(self, image: tuple[int, int]) -> tuple[int, int]:
        return self.scale * image[0], self.scale * image[1]

    def tiles(self, image: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of them."""
        height, width = self.size(image)
        return -(-height // self.side), -(-width // self.side)

    @property
    def work(self) -> float:
        """Products for a tile; of one that is transformed, for each of its positions."""
        positions, plain = self.side + 2 * self.reach, self.side * max(self.record.size, 1)
        each = positions**2 if self.record.tile else plain**2
        return float(each * self.record.inputs * (self.record.outputs if self.record.size else 1))

    @property
    def reach(self) -> int:
        return self.record.size // 2

    def makes(self, pixels: Boxes) -> Boxes:
        """What is made of pixels that it reads."""
        made = pixels.wider(self.reach)
        return made.joined(pixels.wider(self.reach - 1).whole(self.side)) if self.record.tile else made

    def sees(self, pixels: Boxes) -> Boxes:
        """What it reads for pixels that it makes."""
        seen = pixels.wider(self.reach)
        return seen.joined(pixels.whole(self.side).wider(self.reach - 1)) if self.record.tile else seen

    @property
    def growth(self) -> float:
        """Pixels of the image by which it makes what changes larger, on average."""
        return (self.side / 2 + self.reach - 1 if self.record.tile else self.reach) / self.scale


class KeptMaps:
    """Maps of what each layer of ``calls`` made of an image: their slots have rooms of their own, with all rows.

    ``shared``: what several calls work in, by its place in memory, of which there are copies here. ``shown``: the
    picture of that image, None while the maps are not whole.
    """

    def __init__(self, calls: Sequence[Rows], shared: Mapping[int, Stored], size: tuple[int, int]):
        self._calls, self._shared, self._size = calls, shared, size
        self._rooms: list[dict[Room, Tensor]] = [{} for _ in calls]
        self.maps = self._rooms[0]  # of the call that is made
        self._copies: dict[int, Map] = {}
        self.shown: Callable[[], NDArray[np.uint8] | None] = lambda: None

    @property
    def there(self) -> bool:
        """Whether they have been allocated."""
        return any(self._rooms)

    @property
    def bytes(self) -> int:
        of_calls = (bytes_of([rows.kept(self._size[0])], self._size[1]) for rows in self._calls)
        return sum(of_calls) + sum(one.data.nbytes for one in self._shared.values())

    def of_call(self, number: int) -> KeptMaps:
        self.maps = self._rooms[number]
        return self

    def instead(self, one: Stored | Tensor | None) -> Stored | Tensor | None:
        """The copy of what is shared, and everything else as it is."""
        if not isinstance(one, Stored) or (place := one.data.data_ptr()) not in self._shared:
            return one
        if place not in self._copies:
            self._copies[place] = Map(one.channels, one.height, one.width)
        return self._copies[place]


class Changes:
    """Runs ``plan``, of a whole network in float maps, for what changed since the last image.

    InputError, which says why, for a network that cannot run in parts.
    """

    def __init__(self, plan: PairPlan):
        if any(isinstance(chain, MapChain) and chain.in_blocks is not None for chain in plan.weights.chains):
            raise InputError(
                "a layer that a whole image has in blocks, and parts of one have not, needs the whole image"
            )
        self.plan, self.size = plan, plan.area.size
        self.calls: list[list[_Layer]] = []
        self._rows: list[Rows] = []  # of each call
        self._shared: dict[int, Stored] = {}  # that calls write to
        self.lists: list[list[Tensor]] | None = None  # of each call and layer, None for all tiles
        self.next = 0
        self._listing, self.keeps = True, False
        self._run(torch.zeros(plan.height, plan.width, 3, dtype=torch.uint8), plan.buffer())
        self._listing = False
        self.layers = [layer for call in self.calls for layer in call]
        self.whole = sum(layer.work * math.prod(layer.tiles(self.size)) for layer in self.layers)
        self.margin = sum(layer.growth for layer in self.layers)
        writes = Counter(group for layer in self.layers for group in _groups(layer.written))
        self._once = max(writes.values()) == 1  # so that after a run every map is still there
        self._maps = KeptMaps(self._rows, self._shared, self.size)

    @property
    def apart(self) -> bool:
        """Whether no layer is to write over what another has made."""
        return self._listing or self.keeps

    @property
    def kept(self) -> bool:
        """See ``Parts.kept``."""
        return self._maps.there

    def choose(self, changed: Marks, room: int) -> float:
        """See ``Parts.choose``."""
        self.keeps = self._once and (self.kept or self._maps.bytes <= room * PART_OF_ROOM)
        # Of a layer, on average, and a quarter of it, since tiles in which boxes meet are computed once.
        margin = (self.margin / 2 if self.keeps else self.margin) / 4
        wanted = self._changing(boxes_of(self._given(changed), margin))
        if not self.keeps:
            wanted = self._needed(wanted)
        tiles = [self._tiles(layer, boxes) for layer, boxes in zip(self.layers, wanted, strict=True)]
        work = sum(layer.work * len(each) for layer, each in zip(self.layers, tiles, strict=True))
        left = iter(tiles)
        self.lists = [[next(left) for _ in call] for call in self.calls]
        return work / self.whole

    def run(self, image: Tensor, before: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
        """See ``Parts.run``."""
        made, maps = before.copy(), self._maps
        whole = self.keeps and maps.shown() is not before
        if whole:
            self.lists = None
            if not maps.there:
                self.plan.bytes += maps.bytes
        maps.shown = lambda: None
        self._run(image, torch.from_numpy(made))
        if self.keeps:
            maps.shown = weakref.ref(made)
        return made, whole

    def _run(self, image: Tensor, out: Tensor) -> None:
        self.plan.area.regions, self.next = self, 0
        try:
            self.plan.coarse(image, out)
        finally:
            self.plan.area.regions = None

    def lists_of(
        self, rows: Rows, given: Mapping[str, Stored | Tensor], records: Sequence[LayerRecord]
    ) -> tuple[Sequence[LayerRecord], list[Tensor], KeptMaps | None] | None:
        """See ``Regions.lists_of``."""
        if self._listing:
            self._rows.append(rows)
            self.calls.append(self._call(rows, given, records))
            return None
        number, self.next = self.next, self.next + 1
        kept = self._maps.of_call(number) if self.keeps else None
        if self.lists is None:
            return records, [], kept
        return [replace(record, tiles=number) for number, record in enumerate(records)], self.lists[number], kept

    def _call(self, rows: Rows, given: Mapping[str, Stored | Tensor], records: Sequence[LayerRecord]) -> list[_Layer]:
        if any(record.stride != 1 or record.statistics >= 0 for record in records):
            raise InputError("a layer with a stride or sums over the image needs the whole image")
        number = len(self.calls)
        external = {name: str(given[name].data.data_ptr()) for name in rows.external}

        def of_all(use: Use) -> Use:
            """With a name of its slot that no other call has for another map."""
            return use._replace(slot=external.get(use.slot, f"{number} {use.slot}"))

        layers = []
        for stage, side, record in zip(rows.stages, rows.sides, records, strict=True):
            scale, out = rows.slots[part_of(stage.x)[0]].scale, given.get(part_of(stage.out)[0])
            picture = isinstance(out, Tensor)
            if isinstance(out, Stored):
                self._shared[out.data.data_ptr()] = out
            uses = list(map(of_all, reads(stage)))
            layers.append(_Layer(record, uses, of_all(written(stage)), side, scale, stage.factor, picture))
        return layers

    def _given(self, changed: Marks) -> Marks:
        """Pixels of what the network is given: with reflection beyond the image, or blocks of them."""
        side = self.plan.weights.unshuffled
        height, width = (side * length for length in self.size)
        if changed.shape != (height, width):
            image = torch.from_numpy(changed.astype(np.float32))[None, None]
            changed = pad_by_reflection(image, height, width)[0, 0].numpy() > 0
        return any_of(changed.reshape(height // side, side, width // side, side), 1, 3)

    def _changing(self, image: Boxes) -> list[Boxes | None]:
        """What each layer makes, before a shuffle, that is not what it was, from the first to the last."""
        slot, near = str(self.plan.image.data.data_ptr()), image.wider(1)
        changes: Found = {(slot, group): image for group in range(self.plan.image.groups)}
        found = []
        for layer in self.layers:
            x, *parts = (_joined(changes.get(group) for group in _groups(use)) for use in layer.reads)
            if layer.picture:  # the image, enlarged bilinearly, may be added to it
                parts.append(near.times(layer.scale))
            made = _joined([None if x is None else layer.makes(x), *parts])
            made = None if made is None else made.inside(*layer.size(self.size))
            found.append(made)
            for group in _groups(layer.written):
                changes.pop(group, None)
                if made is not None:
                    changes[group] = made.times(layer.factor)
        return found

    def _needed(self, changing: Sequence[Boxes | None]) -> list[Boxes | None]:
        """What each layer must make for the tiles of the picture that change, each of which is written as a whole."""
        needs: Found = {}
        found: list[Boxes | None] = []
        for layer, changed in zip(reversed(self.layers), reversed(changing), strict=True):
            later = _joined([needs.pop(group, None) for group in _groups(layer.written)])
            wanted = None if later is None else later.parts(layer.factor)
            if layer.picture and changed is not None:
                wanted = changed.whole(layer.side)
            found.insert(0, wanted)
            if wanted is None:
                continue
            wanted = wanted.inside(*layer.size(self.size))
            for number, use in enumerate(layer.reads):
                seen = wanted if number else layer.sees(wanted)
                for group in _groups(use):
                    needs[group] = seen.joined(needs.get(group, seen))
        return found

    def _tiles(self, layer: _Layer, boxes: Boxes | None) -> Tensor:
        """int32, the numbers of those of which something is needed."""
        if boxes is None:
            return torch.empty(0, dtype=torch.int32)
        down, across = layer.tiles(self.size)
        marks = boxes.inside(*layer.size(self.size)).parts(layer.side).marks(down, across)
        return torch.from_numpy(np.flatnonzero(marks).astype(np.int32))


def _groups(use: Use) -> list[Group]:
    return [(use.slot, group) for group in range(use.first, use.first + use.groups)]


def _joined(all_boxes: Iterable[Boxes | None]) -> Boxes | None:
    found: Boxes | None = None
    for boxes in all_boxes:
        if boxes is not None and boxes is not found:
            found = boxes if found is None else found.joined(boxes)
    return found
