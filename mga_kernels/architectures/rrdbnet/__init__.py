"""RRDBNet, the generator of ESRGAN, BSRGAN and Real-ESRGAN, which exists whole."""

from ...networks.registry import Network
from .network import BaseNet

NETWORK = Network("rrdbnet", BaseNet, published=f"{__name__}.published:PUBLISHED", cpu=f"{__name__}.cpu:RrdbnetWeights")
