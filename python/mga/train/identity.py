"""A start for the Refine-Net at which it returns the coarse image, so that training can only improve on the Base-Net.

Copying the upsampler of the Base-Net is not enough: on a patch its 3x3 convolution would see zeros beyond the border.
The unpadded ``conv2`` takes its place (its input still has the halo), and the Refine-Net's own upsampler starts as the
identity on those 3 s^2 channels. The trunk ends in a convolution set to zero, so that only its skip is left.

Between ``conv1`` and ``conv2`` stands a leaky ReLU. It lets a value x pass unchanged in two ways: as a pair of
channels, since f(x) - f(-x) = 1.1 x, or as one channel with a bias that keeps it positive, which ``conv2`` takes off
again. A pair costs a channel, a bias costs precision in proportion to its size. ``conv1`` therefore turns the feature
into its principal components, weighted by what they do to the image: the few strong ones become pairs, the others get
a bias, and the weakest, as many as there are pairs, are dropped.

With such biases every step of ``conv2`` would be a step along the mean. While training, its input is therefore centred
by a constant, which ``fold_centre`` moves into the bias of ``conv2`` afterwards: no padding follows, so the function
stays the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PAIRS = 2  # the first 2 of RFDN's 50 components hold 73 % of the image's energy, the last 2 less than 0.001 %
MARGIN = 1.25  # bias of a component over its largest value in the training images
SLOPE = 0.1  # of that leaky ReLU


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


def _components(upsampler: nn.Conv2d, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of the feature in the metric of the image, strongest first.

    Returns ``analyse`` (C, C), feature to components, and its inverse ``build``.
    """
    weight = upsampler.weight.double()
    values, vectors = torch.linalg.eigh(torch.einsum("oiyx,ojyx->ij", weight, weight))
    root = vectors * values.clamp_min(values.max() * 1e-9).sqrt()
    _, rotation = torch.linalg.eigh(root.T @ torch.cov(samples.T) @ root)
    analyse = rotation.flip(1).T @ root.T
    return analyse, torch.linalg.inv(analyse)


@torch.no_grad()
def start_at_identity(base: nn.Module, refine: nn.Module, samples: Tensor) -> None:
    """Set ``refine`` (an RFDN Refine-Net) so that it equals the upsampler of ``base``, and centre its ``conv2``.

    ``samples`` (N, C) float64: the coarse feature at pixels of the training images.
    """
    for i in range(1, refine.blocks + 1):
        source = getattr(base, f"B{base.blocks - refine.blocks + i}")
        getattr(refine, f"B{i}").load_state_dict(source.state_dict())
    for layer in (refine.LR_conv, refine.conv1, refine.conv2):
        layer.weight.zero_()
        layer.bias.zero_()
    coarse = base.upsampler[0]
    analyse, build = _components(coarse, samples)
    kept = len(analyse) - PAIRS
    into = torch.cat([analyse[:kept], -analyse[:PAIRS]])
    back = build[:, :kept].clone()
    back[:, :PAIRS] /= 1 + SLOPE
    back = torch.cat([back, -back[:, :PAIRS]], dim=1)
    bias = MARGIN * (samples @ into.T).abs().amax(dim=0)
    bias[:PAIRS] = bias[kept:] = 0
    refine.conv1.weight[:, :, 1, 1] = into.float()
    refine.conv1.bias.copy_(bias)
    refine.conv2.weight[: coarse.out_channels] = torch.einsum("oiyx,ij->ojyx", coarse.weight.double(), back).float()
    refine.conv2.bias[: coarse.out_channels] = coarse.bias
    _make_identity(refine.upsampler[0])
    refine.conv2 = CentredConv(refine.conv2, refine.conv1.bias)


@torch.no_grad()
def fold_centre(refine: nn.Module) -> None:
    """Undo the centring of ``conv2`` without changing the function."""
    centred = refine.conv2
    centred.conv.bias -= (centred.conv.weight.double().sum(dim=(2, 3)) @ centred.centre.flatten().double()).float()
    refine.conv2 = centred.conv
