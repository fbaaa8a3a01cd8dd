"""The networks, each as a Base-Net and a Refine-Net in a file of its own that ends in its ``NETWORK`` definition."""

from .config import ModelConfig
from .mask_guided import VARIANTS, MaskGuidedNetwork
from .registry import Network, get_network, network_names, register_network
from .whole import WholeConfig, WholeNetwork

SRNetwork = MaskGuidedNetwork | WholeNetwork

__all__ = [
    "VARIANTS",
    "MaskGuidedNetwork",
    "ModelConfig",
    "Network",
    "SRNetwork",
    "WholeConfig",
    "WholeNetwork",
    "get_network",
    "network_names",
    "register_network",
]
