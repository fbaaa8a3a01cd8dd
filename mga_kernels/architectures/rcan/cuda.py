"""The Refine-Net of RCAN in few launches."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ...runtimes.cuda.fused import RELU, Chain, Layers, Link, closing_links
from . import network as rcan


class _FusedBlock(nn.Module):
    """RCAB with its two convolutions in one launch."""

    def __init__(self, block: rcan.RCAB):
        super().__init__()
        first, _, second, self.attention = block.rcab
        self.chain = Chain([Link(cast(nn.Conv2d, first), RELU), Link(cast(nn.Conv2d, second))])

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.chain(x)) + x


def fused(refine: rcan.RefineNet) -> tuple[Layers, int]:
    groups = []
    for group in refine.body:
        assert isinstance(group, rcan.ResidualGroup)
        blocks = nn.Sequential(*(_FusedBlock(cast(rcan.RCAB, block)) for block in group.residual_group))
        groups.append((blocks, group.conv))
    halo = Chain(closing_links(refine), crop=1)

    def body(patches: Tensor) -> Tensor:
        x = patches
        for blocks, conv in groups:
            x = conv(blocks(x)) + x
        return refine.upsample(halo(refine.conv_after_body(x) + patches))

    return body, 1
