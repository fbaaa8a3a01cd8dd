"""What memory the maps between the layers of a chain need: all rows, or those of a band.

Layer by layer, maps that are not in use at the same time share a room. In bands of rows every map has a room of its
own, which holds the rows between where it is written and where it is last read (csrc/maps/run.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .layout import GROUP, map_pitch

# Rows of the largest map: enough tiles for threads not to wait for each other. Of the image at least whole tiles of 4
# and of 6.
BAND, LEAST = 48, 12
SMALL = 32 << 20  # bytes of maps of all rows that are worth no bands


class Room(NamedTuple):
    """A map for slots of so many groups of channels and this scale; those that are in use together have numbers."""

    groups: int
    scale: int
    number: int


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


def band_of(places: Mapping[str, Place], largest: int, height: int, width: int) -> int:
    """The rows of a band, or 0 where maps of all rows need no more memory, or little. ``largest``: scale of a map."""
    rows = max(LEAST, BAND // largest // LEAST * LEAST)
    layer_by_layer, in_bands = (bytes_of([rooms_of(places, height, band)], width) for band in (0, rows))
    return rows if layer_by_layer > max(in_bands, SMALL) else 0


def bytes_of(chains: Iterable[Rooms], width: int) -> int:
    """Of the rooms of chains, which they share, for an image of this width."""
    sizes: dict[Room, int] = {}
    for rooms in chains:
        for room, rows in rooms.values():
            sizes[room] = max(sizes.get(room, 0), rows)
    return sum(4 * GROUP * room.groups * map_pitch(room.scale * width) * rows for room, rows in sizes.items())
