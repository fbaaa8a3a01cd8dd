"""IMDN as KAIR has it, without its attention, which exists whole."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network(
    "simplified_imdn",
    BaseNet,
    working_values=900,
    published=f"{__name__}.published:PUBLISHED",
    cpu=f"{__name__}.cpu:SimplifiedImdnWeights",
)
