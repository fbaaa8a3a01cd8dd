"""FSRCNN."""

from ...networks.registry import Network
from .network import SHRUNK, BaseNet, RefineNet

NETWORK = Network(
    "fsrcnn",
    BaseNet,
    RefineNet,
    feature_channels=SHRUNK,
    split=(3, 1),
    working_values=350,
    published=f"{__name__}.published:PUBLISHED",
    cpu=f"{__name__}.cpu:FsrcnnWeights",
    passes_on=True,
)
