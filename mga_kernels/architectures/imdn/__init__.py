"""IMDN."""

from ...networks.registry import Network
from .network import FEATURE_CHANNELS, BaseNet, RefineNet

NETWORK = Network(
    "imdn",
    BaseNet,
    RefineNet,
    feature_channels=FEATURE_CHANNELS,
    split=(4, 2),
    working_values=900,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
    cpu=f"{__name__}.cpu:ImdnWeights",
)
