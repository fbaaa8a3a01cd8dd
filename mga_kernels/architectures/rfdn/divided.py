"""The published RFDN cut in two without loss (``networks.divided``)."""

from __future__ import annotations

from ...networks.divided import BaseHalf, Distilling, Layout, RefineHalf, channels_of_state
from ...networks.registry import Network
from . import network as rfdn


class _Rfdn(Distilling):
    def __init__(self, scale: int, blocks: int, channels: int = rfdn.FEATURE_CHANNELS, pool: bool = False):
        super().__init__()
        self.build(scale, channels, "B", [rfdn.RFDB(channels, pool) for _ in range(blocks)], rfdn.SLOPE)


class RfdnBase(_Rfdn, BaseHalf):
    def __init__(self, scale: int, blocks: int, channels: int = rfdn.FEATURE_CHANNELS, pool: bool = True):
        super().__init__(scale, blocks, channels, pool)


class RfdnRefine(_Rfdn, RefineHalf):
    pass


DIVIDED = Network(
    "rfdn-split",
    RfdnBase,
    RfdnRefine,
    **channels_of_state(3, rfdn.FEATURE_CHANNELS),
    split=(3, 1),
    value_range=255.0,
    minimum_size=15,
    working_values=800,
    layout=Layout("fea_conv", "B", "upsampler.0", first=1, fusion="c.0"),
)
