"""SRResNet."""

from ...networks.registry import Network
from .network import FEATURE_CHANNELS, BaseNet, RefineNet

NETWORK = Network(
    "srresnet",
    BaseNet,
    RefineNet,
    feature_channels=FEATURE_CHANNELS,
    split=(12, 4),
    minimum_size=2,  # instance normalisation needs more than one pixel
    working_values=2400,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
    cpu=f"{__name__}.cpu:SrresnetWeights",
)
