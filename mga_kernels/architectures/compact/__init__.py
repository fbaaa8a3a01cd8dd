"""SRVGGNetCompact, the small network of Real-ESRGAN, which exists whole."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network("compact", BaseNet, published=f"{__name__}.published:PUBLISHED", cpu=f"{__name__}.cpu:CompactWeights")
