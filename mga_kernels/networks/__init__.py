"""What networks are made of: mask-guided ones and whole ones, their configurations, and which of them are known."""

from .black_box import BlackBoxConfig, BlackBoxNetwork
from .config import ModelConfig
from .interface import SRNetwork
from .mask_guided import VARIANTS, MaskGuidedNetwork
from .regions import RegionConfig, RegionNetwork
from .registry import Network, get_network, network_names, register_network
from .whole import WholeConfig, WholeNetwork

__all__ = [
    "VARIANTS",
    "BlackBoxConfig",
    "BlackBoxNetwork",
    "MaskGuidedNetwork",
    "ModelConfig",
    "Network",
    "RegionConfig",
    "RegionNetwork",
    "SRNetwork",
    "WholeConfig",
    "WholeNetwork",
    "get_network",
    "network_names",
    "register_network",
]
