"""Parameters and operations of the networks, counted without running them, and the paper's figures beside them."""

from .counting import Cost, NetworkCosts, WholeCosts, measure

__all__ = ["Cost", "NetworkCosts", "WholeCosts", "measure"]
