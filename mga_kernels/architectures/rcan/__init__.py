"""RCAN."""

from ...networks.registry import Network
from .network import FEATURE_CHANNELS, BaseNet, RefineNet

NETWORK = Network(
    "rcan",
    BaseNet,
    RefineNet,
    feature_channels=FEATURE_CHANNELS,
    split=(7, 3),
    value_range=255.0,
    working_values=2400,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
    cpu=f"{__name__}.cpu:RcanWeights",
)
