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

from ...networks import SRNetwork
from ...networks.mask_guided import PATCHES_PER_CALL
from ...ops import conv_chain, gather_patches
from ...ops.conv_chain import pack_weights

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

    def __init__(self, network: SRNetwork, body: Layers, shuffle: int):
        self.patch_size, self.halo = network.config.patch_size, network.halo
        self.body, self.shuffle = body, shuffle

    @classmethod
    def of(cls, network: SRNetwork) -> FusedRefine | None:
        """As the network's field ``cuda`` makes it of its Refine-Net; None without one."""
        make = network.config.definition.part("cuda")
        return None if make is None or network.back is None else cls(network, *make(network.back))

    def __call__(self, feature: Tensor, indices: Tensor) -> Tensor:
        """Coarse feature (1, C, p Hp, p Wp) and cells (1, n) -> (n, 3 r^2, m, m) in the network's range."""
        patches = gather_patches(feature, indices, self.patch_size, self.halo)
        parts = [self.body(part) for part in patches.split(PATCHES_PER_CALL["cuda"])]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


def closing_links(refine: nn.Module) -> list[Link]:
    """Those of ``layers.consume_halo``. The unpadded convolution is a padded one whose border is cropped."""
    conv1, conv2 = cast(nn.Conv2d, refine.conv1), cast(nn.Conv2d, refine.conv2)
    return [Link(conv1, HALO_SLOPE), Link(conv2)]
