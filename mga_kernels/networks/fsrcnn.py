"""FSRCNN: fast SR by a small hourglass network and a transposed convolution (Dong et al., ECCV 2016).

RGB in 0..1 (d = 56, s = 12), with the expansion layer moved behind the cut so that the coarse feature has 12 channels.
The Base-Net has 3 mapping layers and the Refine-Net one more, as in the mask-guided paper. Parameter names are those
of the widespread ``first_part / mid_part / last_part`` layout, with the expansion at ``last_part.0``.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import consume_halo, conv, valid_conv
from .registry import Network

SHRUNK = 12
EXPANDED = 56


def _mapping(layers: int) -> list[nn.Module]:
    return [module for _ in range(layers) for module in (conv(SHRUNK, SHRUNK, 3), nn.PReLU(SHRUNK))]


def _expand_and_deconvolve(scale: int) -> nn.Sequential:
    return nn.Sequential(
        conv(SHRUNK, EXPANDED, 1),
        nn.PReLU(EXPANDED),
        nn.ConvTranspose2d(EXPANDED, 3, 9, stride=scale, padding=4, output_padding=scale - 1),
    )


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, 12, H, W)."""

    def __init__(self, scale: int, blocks: int = 3):
        super().__init__()
        self.receptive_field = 2 + blocks + (scale + 3) // scale
        self.first_part = nn.Sequential(conv(3, EXPANDED, 5), nn.PReLU(EXPANDED))
        self.mid_part = nn.Sequential(conv(EXPANDED, SHRUNK, 1), nn.PReLU(SHRUNK), *_mapping(blocks))
        self.last_part = _expand_and_deconvolve(scale)

    def upsample(self, feature: Tensor) -> Tensor:
        """Coarse feature (N, 12, H, W) -> coarse image (N, 3, sH, sW)."""
        return self.last_part(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.mid_part(self.first_part(image))
        return self.upsample(feature), feature


class RefineNet(nn.Module):
    """Feature patches with a halo of one pixel, (N, 12, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1."""

    halo = 1

    def __init__(self, scale: int, blocks: int = 1):
        super().__init__()
        self.receptive_field = blocks + 2 + (scale + 3) // scale
        self.mid_part = nn.Sequential(*_mapping(blocks))
        self.conv1 = conv(SHRUNK, SHRUNK, 3)
        self.conv2 = valid_conv(SHRUNK, SHRUNK)
        self.last_part = _expand_and_deconvolve(scale)

    def forward(self, patches: Tensor) -> Tensor:
        return self.last_part(consume_halo(self.mid_part(patches), self.conv1, self.conv2))


NETWORK = Network(
    "fsrcnn",
    BaseNet,
    RefineNet,
    feature_channels=SHRUNK,
    split=(3, 1),
    working_values=350,
)
