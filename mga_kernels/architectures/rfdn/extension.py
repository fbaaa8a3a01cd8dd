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

from ...networks.registry import Extension
from .network import FEATURE_CHANNELS

MARGIN = 1.25  # bias of a channel over its largest value in the training images


def conv_of(module: nn.Module, name: str) -> tuple[nn.Conv2d, Tensor]:
    """The convolution of this name in ``module`` and its bias, which all of RFDN's have."""
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv, conv.bias


@torch.no_grad()
def _make_identity(conv: nn.Conv2d, bias: Tensor) -> None:
    conv.weight.zero_()
    bias.zero_()
    conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = torch.eye(*conv.weight.shape[:2])


@torch.no_grad()
def start_at_coarse_image(base: nn.Module, refine: nn.Module, blocks: tuple[int, ...], largest: Tensor) -> None:
    """Set ``refine`` (an RFDN Refine-Net) so that it equals the upsampler of ``base``.

    ``blocks``: of the two. ``largest`` (C,): the largest magnitude of each channel of the coarse feature.
    """
    of_base, of_refine = blocks
    for i in range(1, of_refine + 1):
        source = base.get_submodule(f"B{of_base - of_refine + i}")
        refine.get_submodule(f"B{i}").load_state_dict(source.state_dict())
    for name in ("LR_conv", "conv2"):
        layer, bias = conv_of(refine, name)
        layer.weight.zero_()
        bias.zero_()
    _make_identity(*conv_of(refine, "conv1"))
    raised = conv_of(refine, "conv1")[1]
    raised.copy_(MARGIN * largest)
    coarse, coarse_bias = conv_of(base, "upsampler.0")
    conv, bias = conv_of(refine, "conv2")
    conv.weight[: coarse.out_channels] = coarse.weight
    taken_off = coarse.weight.double().sum(dim=(2, 3)) @ raised.double()
    bias[: coarse.out_channels] = (coarse_bias.double() - taken_off).float()
    _make_identity(*conv_of(refine, "upsampler.0"))


def trunk_parameters(refine: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of the tail."""
    tail = {id(p) for part in ("conv1", "conv2", "upsampler") for p in refine.get_submodule(part).parameters()}
    return [p for p in refine.parameters() if id(p) not in tail]


EXTENSION = Extension(start_at_coarse_image, trunk_parameters, {"channels": FEATURE_CHANNELS})
