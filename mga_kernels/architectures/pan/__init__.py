"""PAN."""

from ...networks.registry import Network
from .network import FEATURE_CHANNELS, BaseNet, RefineNet

NETWORK = Network(
    "pan",
    BaseNet,
    RefineNet,
    feature_channels=FEATURE_CHANNELS,
    split=(12, 4),
    working_values=1700,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
    cpu=f"{__name__}.cpu:PanWeights",
)
