"""What networks are made of: mask-guided, whole and others, their configurations, and which of them are known."""

from .black_box import BlackBoxConfig, BlackBoxNetwork
from .classes import ClassConfig, ClassNetwork
from .config import ModelConfig
from .interface import SRNetwork
from .mask_guided import VARIANTS, MaskGuidedNetwork
from .regions import RegionConfig, RegionNetwork
from .registry import Network, get_network, network_names, register_network
from .whole import WholeConfig, WholeNetwork

Config = ModelConfig | RegionConfig | WholeConfig | ClassConfig

__all__ = [
    "VARIANTS",
    "BlackBoxConfig",
    "BlackBoxNetwork",
    "ClassConfig",
    "ClassNetwork",
    "Config",
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
