"""A program run on a photograph: what ``runtimes.cpu`` does with the network that it was made of, bit by bit."""

from __future__ import annotations

import math
import os
from importlib import import_module
from typing import Any

import numpy as np

from .. import records
from ..errors import BackendError
from ..records import FrameRecord, MapRecord
from ..system.threads import processors
from .layout import BEFORE, GROUP, groups_of, map_pitch
from .program import Chain, Program, aligned
from .rooms import Room, Rooms, band_of, bytes_of, rooms_of

COLOURS = 3

_alone: Any = import_module("mga_kernels._alone")  # ImportError where it was not built
_refused = records.adopt(_alone.record_fields)
if _refused is not None:
    raise ImportError(f"the module was built from other sources than this Python ({_refused})")


def kernels() -> str:
    """Which kernels run here. BackendError for an MGA_CPU_ISA that cannot be met."""
    try:
        return _alone.map_kernels()
    except RuntimeError as error:
        raise BackendError(str(error)) from None


class Run:
    """``program`` on images of ``height`` x ``width`` pixels, one at a time. The maps are taken once, when they are
    first needed."""

    def __init__(self, program: Program, height: int, width: int):
        self.program, self.height, self.width = program, height, width
        self._bands = [band_of(chain.places, height, width) for chain in program.chains]
        self._rooms = [rooms_of(c.places, height, band) for c, band in zip(program.chains, self._bands, strict=True)]
        self._sizes = {"image": (COLOURS + 1, 1), **program.planes}  # channels and scales
        self._left: np.ndarray | None = None  # of the memory of all maps
        self._maps: dict[Room, np.ndarray] = {}
        self._planes: dict[str, np.ndarray] = {}

    @property
    def bytes(self) -> int:
        """What it takes, with the picture that it makes."""
        return self._bytes_of_maps() + COLOURS * self.program.scale**2 * self.height * self.width

    def _bytes_of_maps(self) -> int:
        shapes = (self._shape(groups_of(n), scale * self.height, scale) for n, scale in self._sizes.values())
        return sum(4 * math.prod(shape) for shape in shapes) + bytes_of(self._rooms, self.width)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (sH, sW, 3)."""
        scale = self.program.scale
        planes = self._given(rgb)
        picture = np.empty((scale * self.height, scale * self.width, COLOURS), np.uint8)
        for chain, rooms, band in zip(self.program.chains, self._rooms, self._bands, strict=True):
            self._run(chain, rooms, band, planes | {"picture": picture[None]})
        return picture

    def _given(self, rgb: np.ndarray) -> dict[str, np.ndarray]:
        if not self._planes:
            for name, (channels, scale) in self._sizes.items():
                self._planes[name] = self._map(self._shape(groups_of(channels), scale * self.height, scale))
        pixels = self._planes["image"][:, 0, BEFORE : BEFORE + self.width]
        pixels[..., :COLOURS], pixels[..., COLOURS] = rgb, 1
        return self._planes

    def _run(self, chain: Chain, rooms: Rooms, band: int, given: dict[str, np.ndarray]) -> None:
        frame, arrays = FrameRecord(self.height, self.width, band=band), []
        for slot in chain.slots:
            if slot.place is not None:
                arrays.append(self._room(*rooms[slot.name]))
                continue
            arrays.append(given[slot.name])
            if slot.name == "picture":
                down, right = ((side + 1) * slot.scale for side in (self.height, self.width))
                frame = FrameRecord(self.height, self.width, 1, down, right, slot.inset, band)
        _alone.convolve_maps_(
            arrays,
            records.encode(MapRecord(slot.scale) for slot in chain.slots),
            list(chain.weights),
            list(chain.epilogues),
            records.encode(chain.layers),
            records.encode([frame]),
            self.program.gain,
            threads(),
        )

    def _room(self, room: Room, rows: int) -> np.ndarray:
        """The map of a room, which has rows for all chains."""
        known = self._maps.get(room)
        if known is None:
            most = max(count for rooms in self._rooms for other, count in rooms.values() if other == room)
            known = self._maps[room] = self._map(self._shape(room.groups, most, room.scale))
        return known[:rows] if rows < len(known) else known

    def _shape(self, groups: int, rows: int, scale: int) -> tuple[int, int, int, int]:
        return rows, groups, map_pitch(scale * self.width), GROUP

    def _map(self, shape: tuple[int, ...]) -> np.ndarray:
        """Zeros. All maps lie side by side, since the system has large pages for large blocks of memory only."""
        if self._left is None:
            self._left = aligned(self._bytes_of_maps() // 4, np.float32)
        count = math.prod(shape)
        made, self._left = self._left[:count], self._left[count:]
        return made.reshape(shape)


def threads() -> int:
    """As many as there are processors for them, or OMP_NUM_THREADS, which holds PyTorch down."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = int(asked) if asked.isascii() and asked.isdecimal() and int(asked) else processors()
    return min(most, processors())
