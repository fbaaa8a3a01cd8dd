"""FSRCNN: fast SR by a small hourglass network and a transposed convolution (Dong et al., ECCV 2016).

RGB in 0..1 (d = 56, s = 12), with the expansion layer moved behind the cut so that the coarse feature has 12 channels.
The Base-Net has 3 mapping layers and the Refine-Net one more, as in the mask-guided paper. There the transposed
convolution sees nothing beyond its patch, so that 12 of 16 pixels lack some of what they are made from; with
``sees_halo`` it sees the halo too, for 1 % more operations. Parameter names are those of the widespread
``first_part / mid_part / last_part`` layout, with the expansion at ``last_part.0``.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...networks.layers import consume_halo, conv, valid_conv

SHRUNK = 12
EXPANDED = 56


def _mapping(layers: int, shrunk: int = SHRUNK) -> list[nn.Module]:
    return [module for _ in range(layers) for module in (conv(shrunk, shrunk, 3), nn.PReLU(shrunk))]


def _expand_and_deconvolve(
    scale: int, expanded: int = EXPANDED, shrunk: int = SHRUNK, colours: int = 3, padding: int = 4, halo: int = 0
) -> nn.Sequential:
    """The result is ``scale`` times as large as the input without its ``halo``."""
    output_padding = scale - 9 + 2 * padding
    padding += halo * scale
    return nn.Sequential(
        conv(shrunk, expanded, 1),
        nn.PReLU(expanded),
        nn.ConvTranspose2d(expanded, colours, 9, stride=scale, padding=padding, output_padding=output_padding),
    )


class BaseNet(nn.Module):
    """(N, 3, H, W) in 0..1 -> coarse image (N, 3, sH, sW) and coarse feature (N, 12, H, W).

    ``expanded`` (d), ``shrunk`` (s), ``colours`` and the ``padding`` of the transposed convolution are those of
    published networks that differ; a mask-guided network has the defaults.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 3,
        expanded: int = EXPANDED,
        shrunk: int = SHRUNK,
        colours: int = 3,
        padding: int = 4,
    ):
        super().__init__()
        self.receptive_field = 2 + blocks + (scale + 8 - padding) // scale
        self.first_part = nn.Sequential(conv(colours, expanded, 5), nn.PReLU(expanded))
        self.mid_part = nn.Sequential(conv(expanded, shrunk, 1), nn.PReLU(shrunk), *_mapping(blocks, shrunk))
        self.last_part = _expand_and_deconvolve(scale, expanded, shrunk, colours, padding)

    def upsample(self, feature: Tensor) -> Tensor:
        """Coarse feature (N, 12, H, W) -> coarse image (N, 3, sH, sW)."""
        return self.last_part(feature)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.mid_part(self.first_part(image))
        return self.upsample(feature), feature


class RefineNet(nn.Module):
    """Feature patches with a halo of one pixel, (N, 12, p+2, p+2) -> HR patches (N, 3, sp, sp) in 0..1.

    What uses up the halo is the second convolution of the closing pair, or with ``sees_halo`` the transposed one.
    """

    halo = 1

    def __init__(self, scale: int, blocks: int = 1, sees_halo: bool = False):
        super().__init__()
        self.sees_halo = sees_halo
        self.receptive_field = blocks + 2 + (scale + 3) // scale
        self.mid_part = nn.Sequential(*_mapping(blocks))
        self.conv1 = conv(SHRUNK, SHRUNK, 3)
        self.conv2 = conv(SHRUNK, SHRUNK, 3) if sees_halo else valid_conv(SHRUNK, SHRUNK)
        self.last_part = _expand_and_deconvolve(scale, halo=self.halo if sees_halo else 0)

    def forward(self, patches: Tensor) -> Tensor:
        return self.last_part(consume_halo(self.mid_part(patches), self.conv1, self.conv2))
