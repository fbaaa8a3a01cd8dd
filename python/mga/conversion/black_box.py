"""A network that is not ours refines rectangles of what one of ours makes: ``mga convert --black-box``.

Nothing is trained. How far the network sees is found by trial (``sight``), and on images what a halo and a share of the
cells bring and take (``curve``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, read_state_dict
from mga_kernels.checkpoints.black_box import by_spandrel, join, save_black_box
from mga_kernels.errors import InputError
from mga_kernels.networks import BlackBoxConfig, BlackBoxNetwork, WholeNetwork

from ..files.records import Record
from .curve import AS_WHOLE, Measuring, side_within
from .pictures import middles
from .sight import Sight, sight_of

if TYPE_CHECKING:
    from .convert import Request

BASE = "span-x4-fast"
CELL = 8  # LR pixels a side
HALOS = (8, 16, 24, 32, 48, 64, 96)  # LR pixels, rounded up to whole windows
IMAGES = 4  # that are measured
Notes = Callable[[Record], tuple[dict[str, str], Record]]
PROBE = 64  # side of the image by which it is told how large others may be


class BlackBox(Measuring):
    """``network`` on images of which ``held_out`` are parts."""

    def __init__(self, network: BlackBoxNetwork, teacher: WholeNetwork, held_out: list[np.ndarray], sees: int):
        super().__init__(network, teacher, held_out, "auto")
        self.window, self.sees = network.config.window, sees

    def tried(self) -> Sequence[int]:
        """Up to the first that covers all that the network sees."""
        halos = sorted({-(-halo // self.window) * self.window for halo in HALOS})
        return [halo for number, halo in enumerate(halos) if not number or halos[number - 1] < self.sees]

    def measure(self) -> None:
        config = cast(BlackBoxConfig, self._measured())
        self.network.config = replace(config, halos={str(halo): db for halo, db in self.halos.items()})

    def report(self) -> str:
        rows, columns = self.size
        seconds = f"the network takes {self.seconds:.2f} seconds of the processor for {columns}x{rows}"
        halos = ", ".join(f"{halo}: {db:.1f} dB" for halo, db in self.halos.items())
        least = min(self.halos.values(), default=AS_WHOLE)
        more = "" if least >= AS_WHOLE else f" (sought: {AS_WHOLE:g})"
        return f"{seconds}\ninside of regions to its whole picture, by the halo: {halos}{more}\n{super().report()}"

    def facts(self) -> Record:
        size = {"rows": self.size[0], "columns": self.size[1]}
        return super().facts() | {"way": "black box", "seconds": self.seconds, "size": size}


def made_of(asked: Request, base_name: str) -> tuple[WholeNetwork, WholeNetwork, dict[str, Tensor]]:
    """Base-Net, Refine-Net and the tensors of the latter's file. InputError where the two do not go together."""
    original = read_state_dict(asked.checkpoint)
    refine = by_spandrel(original, f"checkpoint: {asked.checkpoint}")
    if refine.config.original is None:
        raise InputError(
            f"convert: {asked.checkpoint} is {refine.config.network}, which has convolutions of ours; use --regions"
        )
    base = load_checkpoint(base_name)
    if not isinstance(base, WholeNetwork) or base.config.colour != "rgb" or base.config.original is not None:
        raise InputError(
            f"convert: --base {base_name} is no whole network of RGB of ours, which the coarse picture needs"
        )
    if base.config.scale != refine.config.scale:
        raise InputError(
            f"convert: --base {base_name} makes x{base.config.scale} and {refine.config.network} "
            f"x{refine.config.scale}; give one of the same scale"
        )
    return base, refine, original


def network_of(base: WholeNetwork, refine: WholeNetwork, sight: Sight, patch_size: int) -> BlackBoxNetwork:
    config = BlackBoxConfig(
        base.config,
        refine.config,
        patch_size,
        0,
        window=sight.window,
        sees=sight.sees,
        smallest=refine.config.definition.minimum_size,
        together=sight.together,
        weights=sum(parameter.numel() for parameter in refine.parameters()),
    )
    return join(base, refine, config)


def side_for(refine: WholeNetwork, minutes: float) -> int:
    """Of images with which measuring stays within the minutes, if any do."""
    model, noise = MaskGuidedSR(refine), np.random.default_rng(0).integers(0, 256, (PROBE, PROBE, 3), dtype=np.uint8)
    model.upscale(noise)
    began = time.perf_counter()
    model.upscale(noise)
    return side_within(60 * minutes, (time.perf_counter() - began) / PROBE**2)


def with_black_box(asked: Request, notes: Notes) -> bool:
    """Measure and write the file; whether it pays. ``notes(facts)`` gives its licence and facts."""
    name = asked.base or BASE
    base, refine, original = made_of(asked, name)
    sight = sight_of(refine, str(asked.checkpoint))
    kind = "sees" if sight.window == 1 else f"has windows of {sight.window} pixels and sees"
    print(f"{refine.config.network} x{refine.config.scale} {kind} {sight.sees} pixels far", flush=True)
    network = network_of(base, refine, sight, asked.patch_size or CELL)
    work = BlackBox(network, refine, middles(asked.images, IMAGES, side_for(refine, asked.minutes)), sight.sees)
    work.measure()
    print(work.report())
    save_black_box(asked.output, network, original, *notes(work.facts() | {"base": name}))
    return work.pays
