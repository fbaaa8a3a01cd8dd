"""What a network's planner is, as a program that runs without PyTorch (``alone``)."""

from __future__ import annotations

import torch

from ... import _native
from ...alone.layout import GROUP
from ...alone.program import LARGEST, Chain, Program, Slot
from ..plan import Planner
from .maps import MapChain
from .plan import PairWeights, PlainWeights


def program_of(planner: Planner) -> Program | None:
    """The program of a whole network in float maps; None of any other, and of one that takes much memory."""
    if not isinstance(planner, PlainWeights) or planner.storage.narrow or planner.unshuffled != 1:
        return None
    if planner.pixel != torch.uint8:
        return None
    kind = type(planner)
    if (kind.base, kind.plan) != (PlainWeights.base, PairWeights.plan):  # which do more
        return None
    if planner.storage.kernels() != _native.map_kernels()[0]:  # MGA_BACKEND
        return None
    config, chains = planner.config, [chain for chain in (planner.trunk, planner.last) if isinstance(chain, MapChain)]
    sizes = {name: (size, 1) if isinstance(size, int) else size for name, size in planner.base_planes.items()}
    program = Program(
        scale=config.scale,
        gain=planner.gain,
        smallest=config.definition.minimum_size,
        gpu=torch.version.cuda is not None or torch.version.hip is not None,
        planes={name: (-(-channels // GROUP) * GROUP, scale) for name, (channels, scale) in sizes.items()},
        chains=tuple(_chain(chain.in_blocks or chain) for chain in chains),
    )
    measured = any(layer.statistics >= 0 for chain in program.chains for layer in chain.layers)
    return None if measured or program.bytes > LARGEST else program


def _chain(chain: MapChain) -> Chain:
    places = chain.rows.places
    return Chain(
        slots=tuple(Slot(name, slot.scale, slot.inset, places.get(name)) for name, slot in chain.slots.items()),
        layers=tuple(chain.records),
        weights=tuple(layer.weight.numpy() for layer in chain.layers),
        epilogues=tuple(layer.epilogue.numpy() for layer in chain.layers),
    )
