"""The Refine-Net of RFDN in few launches."""

from __future__ import annotations

from torch import nn

from ...runtimes.cuda.fused import Chain, Layers, closing_links
from . import network as rfdn


def fused(refine: rfdn.RefineNet) -> tuple[Layers, int]:
    halo = Chain(closing_links(refine), crop=1)
    last, shuffle = refine.upsampler
    assert isinstance(shuffle, nn.PixelShuffle)
    return lambda patches: last(halo(refine.trunk(patches))), shuffle.upscale_factor
