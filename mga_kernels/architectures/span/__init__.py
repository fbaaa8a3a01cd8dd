"""SPAN, which exists whole."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network("span", BaseNet, published=f"{__name__}.published:PUBLISHED", cpu=f"{__name__}.cpu:SpanWeights")
