"""A start for the Refine-Net at which it returns the coarse image, so that training begins level with the Base-Net.

Copying the upsampler of the Base-Net is not enough: on a patch its 3x3 convolution would see zeros beyond the border.
The unpadded ``conv2`` takes its place (its input still has the halo), and the Refine-Net's own upsampler becomes the
identity on those 3 s^2 channels. Between ``conv1`` and ``conv2`` stands a leaky ReLU, which is the identity on positive
values: ``conv1`` is the identity plus a bias beyond the largest feature, and ``conv2`` takes that bias off again. The
trunk ends in a convolution set to zero, so that only its skip is left.

While the tail (``conv1``, ``conv2``, upsampler) stays as it is, the refined image is the coarse image plus a linear
function of what the trunk adds to the feature. Scaling the trunk's last convolution then scales the correction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MARGIN = 1.25  # bias of a channel over its largest value in the training images


@torch.no_grad()
def _make_identity(conv: nn.Conv2d) -> None:
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = torch.eye(*conv.weight.shape[:2])


@torch.no_grad()
def start_at_identity(base: nn.Module, refine: nn.Module, largest: Tensor) -> None:
    """Set ``refine`` (an RFDN Refine-Net) so that it equals the upsampler of ``base``.

    ``largest`` (C,): the largest magnitude of each channel of the coarse feature.
    """
    for i in range(1, refine.blocks + 1):
        source = getattr(base, f"B{base.blocks - refine.blocks + i}")
        getattr(refine, f"B{i}").load_state_dict(source.state_dict())
    for layer in (refine.LR_conv, refine.conv2):
        layer.weight.zero_()
        layer.bias.zero_()
    _make_identity(refine.conv1)
    refine.conv1.bias.copy_(MARGIN * largest)
    coarse = base.upsampler[0]
    refine.conv2.weight[: coarse.out_channels] = coarse.weight
    taken_off = coarse.weight.double().sum(dim=(2, 3)) @ refine.conv1.bias.double()
    refine.conv2.bias[: coarse.out_channels] = (coarse.bias.double() - taken_off).float()
    _make_identity(refine.upsampler[0])


def trunk_parameters(refine: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of the tail."""
    tail = {id(p) for part in (refine.conv1, refine.conv2, refine.upsampler) for p in part.parameters()}
    return [p for p in refine.parameters() if id(p) not in tail]
