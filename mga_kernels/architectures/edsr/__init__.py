"""EDSR, which exists whole."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network(
    "edsr",
    BaseNet,
    value_range=255.0,
    working_values=2400,
    published=f"{__name__}.published:PUBLISHED",
    cpu=f"{__name__}.cpu:EdsrWeights",
)
