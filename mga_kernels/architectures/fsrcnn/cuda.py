"""The Refine-Net of FSRCNN in few launches."""

from __future__ import annotations

from torch import nn

from ...runtimes.cuda.fused import Chain, Layers, Link, closing_links
from . import network as fsrcnn


def fused(refine: fsrcnn.RefineNet) -> tuple[Layers, int]:
    links = []
    mapping = list(refine.mid_part)
    for conv, act in zip(mapping[::2], mapping[1::2], strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(act, nn.PReLU)
        links.append(Link(conv, act.weight))
    chain = Chain([*links, *closing_links(refine)], crop=0 if refine.sees_halo else 1)
    return lambda patches: refine.last_part(chain(patches)), 1
