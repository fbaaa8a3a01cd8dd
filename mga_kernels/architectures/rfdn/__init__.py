"""RFDN."""

from ...networks.registry import Network
from .network import FEATURE_CHANNELS, BaseNet, RefineNet

NETWORK = Network(
    "rfdn",
    BaseNet,
    RefineNet,
    feature_channels=FEATURE_CHANNELS,
    split=(4, 2),
    value_range=255.0,
    minimum_size=15,
    working_values=700,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
    cpu=f"{__name__}.cpu:RfdnWeights",
    extension=f"{__name__}.extension:EXTENSION",
)
