"""The Refine-Net of SRResNet in few launches."""

from __future__ import annotations

from torch import nn

from ...runtimes.cuda.fused import Chain, Layers, Link, closing_links
from . import network as srresnet


def fused(refine: srresnet.RefineNet) -> tuple[Layers, int]:
    if isinstance(refine.bn_mid, nn.InstanceNorm2d):
        halo = Chain(closing_links(refine), crop=1)
        return lambda patches: refine.upsample(halo(refine.trunk(patches))), 1
    links: list[Link] = []
    for block in refine.residual:
        assert isinstance(block, srresnet.ResidualBlock)
        start = len(links)  # the number of the state that the block reads
        links += [Link(block.conv1, srresnet.SLOPE), Link(block.conv2, skip=start)]
    chain = Chain([*links, Link(refine.conv_mid, skip=0), *closing_links(refine)], crop=1)
    return lambda patches: refine.upsample(chain(patches)), 1
