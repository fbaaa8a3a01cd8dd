"""A start for the Refine-Net at which it returns the coarse image, so that training can only improve on the Base-Net.

Copying the upsampler of the Base-Net is not enough: on a patch its 3x3 convolution would see zeros beyond the border.
The unpadded ``conv2`` takes its place (its input still has the halo), and the Refine-Net's own upsampler starts as the
identity on those 3 s^2 channels. The trunk ends in a convolution set to zero, so that only its skip is left. Between
``conv1`` and ``conv2`` stands a leaky ReLU, which is the identity on positive values: ``conv1`` starts as the identity
plus a bias of a few standard deviations of the feature, and ``conv2`` takes that bias off again.

With such a common bias every step of ``conv2`` would be a step along the mean. While training, its input is therefore
centred by a constant, which ``fold_centre`` moves into the bias of ``conv2`` afterwards: no padding follows, so the
function stays the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SPREAD = 4.0  # standard deviations kept in the linear part of the leaky ReLU


class CentredConv(nn.Module):
    """``conv(x - centre)``."""

    def __init__(self, conv: nn.Conv2d, centre: Tensor):
        super().__init__()
        self.conv = conv
        self.register_buffer("centre", centre.reshape(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x - self.centre)


@torch.no_grad()
def _make_identity(conv: nn.Conv2d) -> None:
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = torch.eye(*conv.weight.shape[:2])


@torch.no_grad()
def start_at_identity(base: nn.Module, refine: nn.Module, feature_std: Tensor) -> None:
    """Set ``refine`` (an RFDN Refine-Net) so that it equals the upsampler of ``base``, and centre its ``conv2``.

    ``feature_std`` (C,): standard deviation of each channel of the coarse feature.
    """
    for i in range(1, refine.blocks + 1):
        source = getattr(base, f"B{base.blocks - refine.blocks + i}")
        getattr(refine, f"B{i}").load_state_dict(source.state_dict())
    for layer in (refine.LR_conv, refine.conv2):
        layer.weight.zero_()
        layer.bias.zero_()
    _make_identity(refine.conv1)
    refine.conv1.bias.copy_(SPREAD * feature_std)
    coarse = base.upsampler[0]
    refine.conv2.weight[: coarse.out_channels] = coarse.weight
    refine.conv2.bias[: coarse.out_channels] = coarse.bias
    _make_identity(refine.upsampler[0])
    refine.conv2 = CentredConv(refine.conv2, refine.conv1.bias)


@torch.no_grad()
def fold_centre(refine: nn.Module) -> None:
    """Undo the centring of ``conv2`` without changing the function."""
    centred = refine.conv2
    centred.conv.bias -= (centred.conv.weight.double().sum(dim=(2, 3)) @ centred.centre.flatten().double()).float()
    refine.conv2 = centred.conv
