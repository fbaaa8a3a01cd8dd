"""How any network runs on photographs, from bytes to bytes. No file here names a network."""

from .choose import RUNTIMES, deep, prepare
from .plan import Plan, Planner
from .tiles.budget import Budget

__all__ = ["RUNTIMES", "Budget", "Plan", "Planner", "deep", "prepare"]
