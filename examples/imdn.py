"""A network of one's own, as a worked example: IMDN (Hui et al., ACM MM 2019; keys of its authors' x4 file).

    MGA_NETWORKS=examples/imdn.py mga upscale photo.jpg -o large.png --model imdn.safetensors

docs/own_network.md says what each part must do. What IMDN itself does not decide is marked "Decide".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mga_kernels.networks import Network, register_network
from mga_kernels.networks.layers import PixelShuffleUpsampler, consume_halo, conv, valid_conv

CHANNELS = 64
DISTILLED = 16
SLOPE = 0.05


class ContrastAwareAttention(nn.Module):
    """Times a gate in (0, 1) for each channel, computed from the channel's mean and standard deviation.

    They are taken over all that a call sees: the image in the Base-Net, one patch with its halo in the Refine-Net.
    """

    def __init__(self):
        super().__init__()
        squeeze, expand = conv(CHANNELS, CHANNELS // 16, 1), conv(CHANNELS // 16, CHANNELS, 1)
        self.conv_du = nn.Sequential(squeeze, nn.ReLU(), expand, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * self.conv_du(deviation + mean)


class IMDB(nn.Module):
    """Information multi-distillation block, (N, 64, H, W) to the same shape: each step keeps 16 channels."""

    def __init__(self):
        super().__init__()
        remaining = CHANNELS - DISTILLED
        self.c1 = conv(CHANNELS, CHANNELS, 3)
        self.c2 = conv(remaining, CHANNELS, 3)
        self.c3 = conv(remaining, CHANNELS, 3)
        self.c4 = conv(remaining, DISTILLED, 3)
        self.c5 = conv(CHANNELS, CHANNELS, 1)
        self.cca = ContrastAwareAttention()

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for step in (self.c1, self.c2, self.c3):
            distilled, rest = F.leaky_relu(step(rest), SLOPE).split((DISTILLED, CHANNELS - DISTILLED), dim=1)
            kept.append(distilled)
        return self.c5(self.cca(torch.cat((*kept, self.c4(rest)), dim=1))) + x


class _Half(nn.Module):
    """What both halves consist of: blocks, the fusion of their outputs with a long skip, and the upsampler."""

    def __init__(self, scale: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        for i in range(1, blocks + 1):
            setattr(self, f"IMDB{i}", IMDB())
        self.c = nn.Sequential(conv(blocks * CHANNELS, CHANNELS, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = conv(CHANNELS, CHANNELS, 3)
        self.upsampler = PixelShuffleUpsampler(CHANNELS, 3, scale)

    def trunk(self, shallow: Tensor) -> Tensor:
        x, outputs = shallow, []
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"IMDB{i}")(x)
            outputs.append(x)
        return self.LR_conv(self.c(torch.cat(outputs, dim=1))) + shallow


class BaseNet(_Half):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, 64, H, W)."""

    def __init__(self, scale: int, blocks: int = 4):
        super().__init__(scale, blocks)
        self.fea_conv = conv(3, CHANNELS, 3)

    def upsample(self, feature: Tensor) -> Tensor:
        return self.upsampler(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Decide: where to cut. Here, as in the paper's RFDN, at the last tensor before the upsampler.
        feature = self.trunk(self.fea_conv(image))
        return self.upsample(feature), feature


class RefineNet(_Half):
    """Feature patches with a halo of one pixel, (N, 64, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1."""

    halo = 1

    def __init__(self, scale: int, blocks: int = 2):
        super().__init__(scale, blocks)
        self.conv1 = conv(CHANNELS, CHANNELS, 3)
        self.conv2 = valid_conv(CHANNELS, CHANNELS)  # unpadded: takes the halo off

    def forward(self, patches: Tensor) -> Tensor:
        # Decide: layers that look at the whole of their input. The attention is kept as it is, with the statistics of
        # each patch, as the paper's RCAN does; -A and -D are then two different functions.
        return self.upsampler(consume_halo(self.trunk(patches), self.conv1, self.conv2))


# Decide: the split. IMDN has 6 blocks; 4 + 2 is the paper's split of RFDN. (6, n) takes the published file as it is.
register_network(
    Network("imdn", BaseNet, RefineNet, feature_channels=CHANNELS, split=(4, 2), value_range=1.0, working_values=900)
)
