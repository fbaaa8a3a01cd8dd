"""The networks, each as a Base-Net and a Refine-Net in a file of its own.

A network module defines ``BaseNet`` (with ``upsample``), ``RefineNet`` (with ``halo``), ``FEATURE_CHANNELS``,
``VALUE_RANGE`` (what white is for it), ``MINIMUM_SIZE`` (sides of the smallest image it takes) and ``WORKING_VALUES``
(numbers alive per LR pixel at the peak of a forward pass, measured).
"""

from .config import ModelConfig
from .mask_guided import VARIANTS, MaskGuidedNetwork

__all__ = ["VARIANTS", "MaskGuidedNetwork", "ModelConfig"]
