"""The engine: what it is asked, what it decides, and what it returns."""

from .explanation import Explanation
from .model import MaskGuidedSR
from .result import Result
from .settings import Settings

__all__ = ["Explanation", "MaskGuidedSR", "Result", "Settings"]
