"""The engine: what it is asked, what it decides, and what it returns."""

from .explanation import Explanation
from .frames import Frames, Reused
from .model import MaskGuidedSR
from .result import Result
from .settings import Settings

__all__ = ["Explanation", "Frames", "MaskGuidedSR", "Result", "Reused", "Settings"]
