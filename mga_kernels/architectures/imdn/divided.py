"""The published IMDN cut in two without loss (``networks.divided``)."""

from __future__ import annotations

from ...networks.distilling import IMDB, SLOPE
from ...networks.divided import BaseHalf, Distilling, Layout, RefineHalf, channels_of_state
from ...networks.registry import Network
from . import network as imdn


class _Imdn(Distilling):
    def __init__(
        self,
        scale: int,
        blocks: int,
        channels: int = imdn.FEATURE_CHANNELS,
        distilled: int = imdn.DISTILLED,
        squeezed: int = imdn.FEATURE_CHANNELS // 16,
    ):
        super().__init__()
        modules = [IMDB(channels, distilled, squeezed) for _ in range(blocks)]
        self.build(scale, channels, "IMDB", modules, SLOPE)


class ImdnBase(_Imdn, BaseHalf):
    pass


class ImdnRefine(_Imdn, RefineHalf):
    pass


DIVIDED = Network(
    "imdn-split",
    ImdnBase,
    ImdnRefine,
    **channels_of_state(3, imdn.FEATURE_CHANNELS),
    split=(4, 2),
    working_values=1000,
    layout=Layout("fea_conv", "IMDB", "upsampler.0", first=1, fusion="c.0"),
)
