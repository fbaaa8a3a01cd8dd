"""What memory the maps between the layers of a chain need: all rows, or those of a band.

Layer by layer, maps that are not in use at the same time share a room. In bands of rows every map has a room of its
own, which holds the rows between where it is written and where it is last read (csrc/maps/run.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .layout import GROUP, map_pitch

# Rows of the largest map: enough tiles for threads not to wait for each other, and not to read a layer's weights anew
# for every few of them. Of the image at least whole tiles of 4 and of 6.
BAND, LEAST = 48, 12
ROOMY = 512 << 20  # bytes of maps in bands, of which there are fewer rows where they would need more
SMALL = 32 << 20  # bytes of maps of all rows that are worth no bands
LISTED_SMALL = 768 << 20  # the same where layers run over lists: of a band few tiles are left to read weights for


class Room(NamedTuple):
    """A map for slots of so many groups of channels and this scale; those that are in use together have numbers.

    ``inset``: of patches, where what is not written must stay zero, those that have lost so many pixels at their border
    have rooms of their own.
    """

    groups: int
    scale: int
    number: int
    inset: int = 0


class Place(NamedTuple):
    """Where a slot that is not external lies: layer by layer, and in bands, where ``beyond`` rows beside those of the
    band itself are in use at a time."""

    shared: Room
    own: Room
    beyond: int


Rooms = dict[str, tuple[Room, int]]  # of slots by their names, and how many rows


def rooms_of(places: Mapping[str, Place], height: int, band: int) -> Rooms:
    """The room of each slot, and its rows, for an image of so many rows; a band of 0 is one layer after the other."""
    found: Rooms = {}
    for name, (shared, own, beyond) in places.items():
        whole = height * own.scale
        found[name] = (own, min(own.scale * band + beyond, whole)) if band else (shared, whole)
    return found


def band_of(places: Mapping[str, Place], height: int, width: int, small: int | None = None) -> int:
    """The rows of a band, or 0 where maps of all rows need no more memory, or no more than ``small`` or SMALL bytes."""

    def needed(band: int) -> int:
        return bytes_of([rooms_of(places, height, band)], width)

    largest = max((place.own.scale for place in places.values()), default=1)
    rows = max(LEAST, BAND // largest // LEAST * LEAST)
    while rows > LEAST and needed(rows) > ROOMY:
        rows = max(LEAST, rows // 2 // LEAST * LEAST)
    return rows if needed(0) > max(needed(rows), SMALL if small is None else small) else 0


def bytes_of(chains: Iterable[Rooms], width: int) -> int:
    """Of the rooms of chains, which they share, for an image of this width."""
    sizes: dict[Room, int] = {}
    for rooms in chains:
        for room, rows in rooms.values():
            sizes[room] = max(sizes.get(room, 0), rows)
    return sum(4 * GROUP * room.groups * map_pitch(room.scale * width) * rows for room, rows in sizes.items())
