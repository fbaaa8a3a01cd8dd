"""The light upsampler of a Base-Net, as good as it can be before anything else is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mga_kernels.networks import MaskGuidedNetwork

RIDGE = 1e-6  # of the mean square of what the convolution reads


@torch.no_grad()
def fit_light_upsampler(network: MaskGuidedNetwork, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Least squares: the weights with which the coarse images are nearest to what is wanted of them.

    ``batches``: pairs of images (B, 3, H, W) and (B, 3, sH, sW). What the convolution reads does not depend on it.
    """
    light, scale = cast(nn.Conv2d, network.base.light), network.config.scale
    assert light.bias is not None
    light.weight.zero_()
    light.bias.zero_()
    read: list[Tensor] = []
    hook = light.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    inputs = light.weight[0].numel() + 1
    squares = torch.zeros(inputs, inputs, dtype=torch.float64)
    products = torch.zeros(inputs, light.out_channels, dtype=torch.float64)
    try:
        for lr, wanted in batches:
            missing = F.pixel_unshuffle(wanted - network.coarse(lr)[0], scale) * network.value_range
            windows = F.unfold(read.pop(), 3, padding=1).transpose(1, 2).flatten(0, 1).double()
            windows = torch.cat([windows, windows.new_ones(len(windows), 1)], dim=1)
            squares += windows.T @ windows
            products += windows.T @ missing.flatten(2).transpose(1, 2).flatten(0, 1).double()
    finally:
        hook.remove()
    squares.diagonal()[:-1] += RIDGE * squares.diagonal()[:-1].mean()
    found = torch.linalg.solve(squares, products).T
    light.weight.copy_(found[:, :-1].reshape(light.weight.shape))
    light.bias.copy_(found[:, -1])
