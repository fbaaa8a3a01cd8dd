"""Plans that stay within an amount of memory: the whole image where it fits, tiles otherwise."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from ...errors import OutOfMemoryError
from ...networks import SRNetwork
from ...notices import warn
from ...system.memory import GIB, RESERVE, device_memory, out_of_memory, require_memory
from ..cuda.capture import give_back_unused_memory
from ..plan import PatchPlan, Plan, Planner
from ..pytorch.modules import ModulePlanner
from .patches import TiledPatches
from .regions import TiledRegions
from .tiled import TiledPlan
from .tiling import CONTEXT, Overlap, Tiling, asked, tilings

TRIED_KEPT = 16
PORTION = 1024  # patches of an image in tiles that are gathered and refined at a time

logger = logging.getLogger("mga_kernels")
Key = tuple[int, int, int, bool]  # height, width, capacity, dense


@dataclass(frozen=True)
class Way:
    """How to run an image. ``working``: bytes that smaller tiles need less of; ``fixed``: all others."""

    tiling: Tiling | None
    working: int
    fixed: int

    @property
    def bytes(self) -> int:
        return self.working + self.fixed

    def __str__(self) -> str:
        tiling = self.tiling
        return "whole" if tiling is None else f"in {len(tiling)} tiles of {tiling.width}x{tiling.height}"


def tile_planner(planner: Planner, network: SRNetwork) -> Planner:
    """What makes the plans of tiles: ``planner``, unless a tile must know its place and its plans do not look at it."""
    return ModulePlanner(network) if network.reach.takes_place and not planner.takes_place else planner


def portion(network: SRNetwork, tiling: Tiling, capacity: int) -> int:
    """Patches that the plan of a tile has room for."""
    p = network.config.patch_size
    return min(capacity, PORTION, math.ceil(tiling.height / p) * math.ceil(tiling.width / p))


def tiled(planner: Planner, network: SRNetwork, height: int, width: int, capacity: int, tiling: Tiling) -> TiledPlan:
    """The plan of an image in tiles, by what the plans of ``planner`` do with cells."""
    inner = planner.plan(tiling.height, tiling.width, portion(network, tiling, capacity))
    if isinstance(inner, PatchPlan):
        return TiledPatches(inner, network, height, width, capacity, tiling)
    return TiledRegions(inner, network, height, width, capacity, tiling)


class Budget:
    """Makes the plans of a network within ``memory`` bytes, and never more than there are, less a reserve.

    ``memory`` is what upscaling takes in addition to the model: buffers, what the allocator needs on the way, and the
    resulting picture. A network that looks at the whole image (means over it: RCAN, SRResNet with instance
    normalisation) is never cut: a tile has means of its own, so colours and sharpness would change from tile to tile.

    ``tile``: a side of tiles into which images are cut whatever their size, with little around each; a warning says
    where the result is not that of the whole image.
    """

    def __init__(
        self, planner: Planner, network: SRNetwork, device: torch.device, memory: int | None, tile: int | None = None
    ):
        self.planner, self.network, self.device, self.memory, self.tile = planner, network, device, memory, tile
        self.tile_planner = tile_planner(planner, network)
        self.overlap = Overlap.of(network)
        self.local_refine = network.reach.refine is not None
        self.limits: dict[Key, int] = {}  # of ``Way.working``, where memory ran out
        self.tried: dict[Key, Way] = {}

    def room(self, held: int = 0) -> int:
        """Bytes that a plan may take; ``held`` are taken by others of this model, which ``memory`` includes."""
        available = int(device_memory(self.device) * (1 - RESERVE))
        return available if self.memory is None else min(available, self.memory - held)

    def untiled(self, height: int, width: int, capacity: int, dense: bool) -> Way:
        return Way(None, self.planner.bytes_needed(height, width, capacity, dense), 0)

    def fits(self, height: int, width: int, capacity: int, dense: bool, held: int) -> bool:
        """Whether the image fits, whole or in the tiles that were asked for, beside plans that take ``held`` bytes."""
        size = height, width, capacity, dense
        return (self.in_asked(*size) or self.untiled(*size)).bytes <= self.room(held)

    def in_tiles(self, height: int, width: int, capacity: int, dense: bool) -> list[Way]:
        """Ways in tiles, that with the least work first."""
        if self.overlap is None or (dense and not self.local_refine):
            return []
        return [self._way(tiling, height, width, capacity, dense) for tiling in tilings(self.overlap, height, width)]

    def in_asked(self, height: int, width: int, capacity: int, dense: bool) -> Way | None:
        """The way in tiles of the side that was asked for, None where none was or the image is no larger."""
        tiling = None if self.tile is None else asked(self.network, height, width, self.tile)
        return None if tiling is None else self._way(tiling, height, width, capacity, dense)

    def _way(self, tiling: Tiling, height: int, width: int, capacity: int, dense: bool) -> Way:
        config, count = self.network.config, portion(self.network, tiling, capacity)
        side = config.patch_size + 2 * self.network.halo
        fixed = 4 * capacity * config.feature_channels * side**2
        if self.device.type == "cpu":
            fixed += self._picture(height, width)
        return Way(tiling, self.tile_planner.bytes_needed(tiling.height, tiling.width, count, dense), fixed)

    def plan(self, height: int, width: int, capacity: int, dense: bool, held: int, what: str) -> Plan:
        """The plan with the least work that fits; OutOfMemoryError, saying ``what`` needs it, where none does.

        With ``dense`` there is room for -D as well.
        """
        key = height, width, capacity, dense
        self.tried.pop(key, None)
        way = self._choose(key, held, what)
        while len(self.tried) >= TRIED_KEPT:
            self.tried.pop(next(iter(self.tried)))
        self.tried[key] = way
        plan = self._make(key, way, what)
        plan.bytes = way.bytes
        return plan

    def _make(self, key: Key, way: Way, what: str) -> Plan:
        if way.tiling is None:
            return self.planner.plan(*key[:3])
        if self.device.type != "cpu":
            require_memory(self._picture(*key[:2]), what, "use a smaller image")
        logger.info("%s: %s, with %.2f GiB", what, way, way.bytes / GIB)
        if self.tile is not None and (self.overlap is None or self.overlap.width > CONTEXT):
            self._say_what_it_costs(*key[:2], way.tiling)
        return tiled(self.tile_planner, self.network, *key[:3], way.tiling)

    def _say_what_it_costs(self, height: int, width: int, tiling: Tiling) -> None:
        looks = "at the whole image" if self.overlap is None else f"{self.overlap.width} pixels far"
        name, more = self.network.config.network, tiling.pixels / (height * width) - 1
        warn(
            f"tile={self.tile}: {width}x{height} is cut into {len(tiling)} tiles with {CONTEXT} pixels around each, "
            f"and {name} looks {looks}: the picture differs from that of the whole image, most at "
            f"the seams, for {more:.0%} more work; without tile= it does not"
        )

    def shrink(self, height: int, width: int, capacity: int, dense: bool) -> bool:
        """After memory ran out: let the next plan of this size work in half of it; False where there is no such way."""
        key = height, width, capacity, dense
        last = self.tried.pop(key, None)
        if self.tile is not None:
            return False
        smaller = [] if last is None else [way.working for way in self.in_tiles(*key) if way.working < last.working]
        if last is None or not smaller:
            return False
        self.limits[key] = max(last.working // 2, min(smaller))
        logger.warning("%dx%d %s ran out of memory; trying smaller tiles", width, height, last)
        if self.device.type == "cuda":
            give_back_unused_memory()
        return True

    def _choose(self, key: Key, held: int, what: str) -> Way:
        room, limit = self.room(held), self.limits.get(key, math.inf)
        way = self.in_asked(*key)
        if way is not None:
            if way.bytes <= room:
                return way
            raise out_of_memory(way.bytes, max(room, 0), what, f"that is {way}; use smaller tiles")
        untiled = self.untiled(*key)
        if untiled.bytes <= room and untiled.working <= limit:
            return untiled
        ways = self.in_tiles(*key)
        for way in ways:
            if way.bytes <= room and way.working <= limit:
                return way
        raise self._refusal(min([untiled, *ways], key=lambda way: way.bytes), key, room, what)

    def _refusal(self, least: Way, key: Key, room: int, what: str) -> OutOfMemoryError:
        more = "" if self.memory is None else ", a larger memory="
        name, dense = self.network.config.network, key[3]
        if self.overlap is None:
            remedy = f"{name} looks at the whole image, so it is not cut into tiles; use a smaller image{more}"
        elif dense and not self.local_refine:
            remedy = f"-D of {name} looks at the whole image, so it is not cut into tiles; run -M{more}"
        elif least.tiling is None:
            remedy = f"use a smaller image, a smaller k{more}"
        else:
            remedy = f"that is {least}, the smallest; use a smaller image, a smaller k{more}"
        return out_of_memory(least.bytes, max(room, 0), what, remedy)

    def _picture(self, height: int, width: int) -> int:
        """Bytes of the picture, of whole cells, and of the mask."""
        p, scale = self.network.config.patch_size, self.network.config.scale
        cells = math.ceil(height / p) * math.ceil(width / p)
        return cells * (3 * (p * scale) ** 2 * self.planner.pixel.itemsize + 4)
