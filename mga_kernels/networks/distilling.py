"""The information multi-distillation block, of which IMDN and its simplified form consist."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv

SLOPE = 0.05


class ContrastAttention(nn.Module):
    """Times a gate in (0, 1) for each channel, computed from its standard deviation plus its mean over the image."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv_du = nn.Sequential(conv(channels, squeezed, 1), nn.ReLU(), conv(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * self.conv_du(deviation + mean)


class IMDB(nn.Module):
    """Information multi-distillation block, (N, C, H, W) to the same shape: each step keeps ``distilled`` channels.

    ``squeezed``: channels of the attention on what is kept; 0 for none.
    """

    def __init__(self, channels: int, distilled: int, squeezed: int = 0):
        super().__init__()
        self.parts = (distilled, channels - distilled)
        self.c1 = conv(channels, channels, 3)
        self.c2 = conv(channels - distilled, channels, 3)
        self.c3 = conv(channels - distilled, channels, 3)
        self.c4 = conv(channels - distilled, distilled, 3)
        self.cca = ContrastAttention(4 * distilled, squeezed) if squeezed else nn.Identity()
        self.c5 = conv(4 * distilled, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for step in (self.c1, self.c2, self.c3):
            distilled, rest = F.leaky_relu(step(rest), SLOPE).split(self.parts, dim=1)
            kept.append(distilled)
        return self.c5(self.cca(torch.cat((*kept, self.c4(rest)), dim=1))) + x
