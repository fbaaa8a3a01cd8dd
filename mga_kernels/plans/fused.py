"""Refine-Nets in few launches: runs of 3x3 convolutions as one ``conv_chain``, the end of the network as one paste.

What fits into a chain are convolutions of C to C channels whose only other input is an earlier state of the same
chain: all of FSRCNN's mapping, all of SRResNet without normalisation up to the upsampler, the pairs in RCAN's blocks,
and in every network that has them the two convolutions that consume the halo. RFDN's blocks keep states that a chain
does not return, and PAN's multiply in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..networks import MaskGuidedNetwork, fsrcnn, pan, rcan, rfdn, srresnet
from ..networks.mask_guided import PATCHES_PER_CALL
from ..ops import conv_chain, gather_patches
from ..ops.conv_chain import pack_weights

HALO_SLOPE = 0.1  # of networks.layers.consume_halo
RELU, LINEAR = 0.0, 1.0
Layers = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Link:
    """A convolution of a chain: its activation's slope for negative values, and the state added before, or -1."""

    conv: nn.Conv2d
    slope: float | Tensor = LINEAR
    skip: int = -1


class Chain:
    """``conv_chain`` of these links, their weights packed once; (N, C, q, q) -> (N, C, q - 2 crop, q - 2 crop)."""

    def __init__(self, links: list[Link], crop: int = 0):
        first = links[0].conv.weight
        channels = first.shape[0]
        self.weights = pack_weights(torch.stack([link.conv.weight.detach() for link in links]))
        self.biases = torch.stack([_bias(link.conv) for link in links])
        slopes = [torch.as_tensor(link.slope, dtype=first.dtype, device=first.device) for link in links]
        self.slopes = torch.stack([slope.detach().expand(channels) for slope in slopes])
        self.skips, self.crop = [link.skip for link in links], crop

    def __call__(self, patches: Tensor) -> Tensor:
        return conv_chain(patches, self.weights, self.biases, self.slopes, self.skips, self.crop)


class FusedRefine:
    """The Refine-Net of a network over selected cells, up to ``paste_shuffled_``.

    ``body``: patches (n, C, p + 2h, p + 2h) -> (n, 3 r^2, m, m), r = ``shuffle``, whose pixel shuffle by r is what the
    Refine-Net returns. The weights are copies: of those that the network has when this is made.
    """

    def __init__(self, network: MaskGuidedNetwork, body: Layers, shuffle: int):
        self.patch_size, self.halo = network.config.patch_size, network.halo
        self.body, self.shuffle = body, shuffle

    @classmethod
    def of(cls, network: MaskGuidedNetwork) -> FusedRefine | None:
        """None for a Refine-Net of which nothing is known."""
        for kind, make in _MAKERS.items():
            if type(network.refine) is kind:
                body, shuffle = make(network.refine)
                return cls(network, body, shuffle)
        return None

    def __call__(self, feature: Tensor, indices: Tensor) -> Tensor:
        """Coarse feature (1, C, p Hp, p Wp) and cells (1, n) -> (n, 3 r^2, m, m) in the network's range."""
        patches = gather_patches(feature, indices, self.patch_size, self.halo)
        parts = [self.body(part) for part in patches.split(PATCHES_PER_CALL["cuda"])]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


def _consume_halo(refine: nn.Module) -> list[Link]:
    """The unpadded convolution is a padded one whose border is cropped."""
    conv1, conv2 = cast(nn.Conv2d, refine.conv1), cast(nn.Conv2d, refine.conv2)
    return [Link(conv1, HALO_SLOPE), Link(conv2)]


def _fsrcnn(refine: fsrcnn.RefineNet) -> tuple[Layers, int]:
    links = []
    mapping = list(refine.mid_part)
    for conv, act in zip(mapping[::2], mapping[1::2], strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(act, nn.PReLU)
        links.append(Link(conv, act.weight))
    chain = Chain([*links, *_consume_halo(refine)], crop=0 if refine.sees_halo else 1)
    return lambda patches: refine.last_part(chain(patches)), 1


def _rfdn(refine: rfdn.RefineNet) -> tuple[Layers, int]:
    halo = Chain(_consume_halo(refine), crop=1)
    last, shuffle = refine.upsampler
    assert isinstance(shuffle, nn.PixelShuffle)
    return lambda patches: last(halo(refine.trunk(patches))), shuffle.upscale_factor


def _pan(refine: pan.RefineNet) -> tuple[Layers, int]:
    return refine, 1


def _srresnet(refine: srresnet.RefineNet) -> tuple[Layers, int]:
    if isinstance(refine.bn_mid, nn.InstanceNorm2d):
        halo = Chain(_consume_halo(refine), crop=1)
        return lambda patches: refine.upsample(halo(refine.trunk(patches))), 1
    links: list[Link] = []
    for block in refine.residual:
        assert isinstance(block, srresnet.ResidualBlock)
        start = len(links)  # the number of the state that the block reads
        links += [Link(block.conv1, srresnet.SLOPE), Link(block.conv2, skip=start)]
    chain = Chain([*links, Link(refine.conv_mid, skip=0), *_consume_halo(refine)], crop=1)
    return lambda patches: refine.upsample(chain(patches)), 1


class _FusedBlock(nn.Module):
    """RCAB with its two convolutions in one launch."""

    def __init__(self, block: rcan.RCAB):
        super().__init__()
        first, _, second, self.attention = block.rcab
        self.chain = Chain([Link(cast(nn.Conv2d, first), RELU), Link(cast(nn.Conv2d, second))])

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.chain(x)) + x


def _rcan(refine: rcan.RefineNet) -> tuple[Layers, int]:
    groups = []
    for group in refine.body:
        assert isinstance(group, rcan.ResidualGroup)
        blocks = nn.Sequential(*(_FusedBlock(cast(rcan.RCAB, block)) for block in group.residual_group))
        groups.append((blocks, group.conv))
    halo = Chain(_consume_halo(refine), crop=1)

    def body(patches: Tensor) -> Tensor:
        x = patches
        for blocks, conv in groups:
            x = conv(blocks(x)) + x
        return refine.upsample(halo(refine.conv_after_body(x) + patches))

    return body, 1


_MAKERS: dict[type, Callable] = {
    fsrcnn.RefineNet: _fsrcnn,
    pan.RefineNet: _pan,
    rfdn.RefineNet: _rfdn,
    srresnet.RefineNet: _srresnet,
    rcan.RefineNet: _rcan,
}
