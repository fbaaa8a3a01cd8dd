"""The last convolution of a Base-Net, as good as it can be before anything else is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RIDGE = 1e-6  # of the mean square of what the convolution reads


@torch.no_grad()
def fit_last(
    conv: nn.Conv2d,
    made: Callable[[Tensor], Tensor],
    scale: int,
    value_range: float,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> None:
    """Least squares: the weights of ``conv``, before a pixel shuffle, with which images are nearest to the wanted ones.

    ``made``: image (B, 3, H, W) -> (B, 3, sH, sW), both in 0..1, to which the convolution adds in 0..``value_range``.
    ``batches``: pairs of images and what is wanted of them. What the convolution reads does not depend on it.
    """
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    read: list[Tensor] = []
    hook = conv.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    inputs = conv.weight[0].numel() + 1
    squares = torch.zeros(inputs, inputs, dtype=torch.float64)
    products = torch.zeros(inputs, conv.out_channels, dtype=torch.float64)
    try:
        for lr, wanted in batches:
            missing = F.pixel_unshuffle(wanted - made(lr), scale) * value_range
            windows = F.unfold(read.pop(), 3, padding=1).transpose(1, 2).flatten(0, 1).double()
            windows = torch.cat([windows, windows.new_ones(len(windows), 1)], dim=1)
            squares += windows.T @ windows
            products += windows.T @ missing.flatten(2).transpose(1, 2).flatten(0, 1).double()
    finally:
        hook.remove()
    squares.diagonal()[:-1] += RIDGE * squares.diagonal()[:-1].mean()
    found = torch.linalg.solve(squares, products).T
    conv.weight.copy_(found[:, :-1].reshape(conv.weight.shape))
    conv.bias.copy_(found[:, -1])
