"""MSRResNet, which exists whole, and cut in two without loss."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network(
    "msrresnet",
    BaseNet,
    working_values=2400,
    published=f"{__name__}.published:PUBLISHED",
    divided=f"{__name__}.divided:DIVIDED",
)
