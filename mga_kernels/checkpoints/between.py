"""A network between two that were trained for different strengths, as Real-ESRGAN's general network and its wdn."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Unpack

from ..errors import CheckpointError, InputError
from ..modes import ordinary
from ..networks import SRNetwork, WholeNetwork
from .loading import Decided, load_checkpoint

STRONG, WEAK = "general", "general-wdn"  # in the names of the files of which the pair is published
REMEDY = "name it by denoise_source= (--denoise-model)"


@ordinary()
def load_between(
    source: object, denoise: float, weaker: str | os.PathLike | None = None, **decided: Unpack[Decided]
) -> WholeNetwork:
    """The network of ``source``, ``denoise`` of the way from that of ``weaker`` to it, weight by weight.

    1 is ``source`` as it is, which denoises most, 0 ``weaker``; without that, it is the file beside ``source`` that is
    called so as the published pair is. ``decided``: what ``load_checkpoint`` takes. InputError for a strength beyond
    these or a file that is missing, CheckpointError for networks of two kinds.
    """
    if not isinstance(denoise, int | float) or isinstance(denoise, bool) or not 0 <= denoise <= 1:
        raise InputError(f"checkpoint: denoise is a strength from 0 to 1, got {denoise!r}")
    strong = load_checkpoint(source, **decided)
    if denoise == 1 and weaker is None:
        return _whole(strong, source)
    weaker = weaker if weaker is not None else _beside(source)
    weak = _whole(load_checkpoint(weaker, **decided), weaker)
    strong = _whole(strong, source)
    if _shape(strong) != _shape(weak):
        raise CheckpointError(
            f"checkpoint: {source} and {os.fspath(weaker)} are no pair: they are "
            f"{_shown(strong)} and {_shown(weak)}; {REMEDY}"
        )
    other = weak.state_dict()
    strong.load_state_dict(
        {name: other[name].lerp(tensor, float(denoise)) for name, tensor in strong.state_dict().items()}
    )
    return strong


def _whole(network: SRNetwork, source: object) -> WholeNetwork:
    if not isinstance(network, WholeNetwork):
        what = "a mask" if network.masked else "classes"
        raise InputError(f"checkpoint: denoise is for two whole networks, and {source} has {what}; leave denoise out")
    return network


def _beside(source: object) -> Path:
    """The file of the published pair that denoises least."""
    path = Path(source) if isinstance(source, str | os.PathLike) else Path()
    name = path.name.replace(STRONG, WEAK, 1)
    beside = path.with_name(name) if name != path.name and WEAK not in path.name else None
    if beside is None or not beside.is_file():
        what = "" if beside is None else f", and there is no {beside}"
        raise InputError(f"checkpoint: denoise needs the network that denoises least{what}; {REMEDY}")
    return beside


def _shape(network: WholeNetwork) -> tuple[object, ...]:
    return (dataclasses.astuple(network.config), *((name, t.shape) for name, t in network.state_dict().items()))


def _shown(network: WholeNetwork) -> str:
    config, weights = network.config, sum(parameter.numel() for parameter in network.parameters())
    return f"{config.network} x{config.scale} of {config.blocks} blocks, {weights:,} weights"
