"""The Mask Prediction (MP) module of the paper, section 3.3: coarse feature -> error mask over p x p cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..ops import dynamic_filter, filter_and_select, mask_head
from ..ops.mask_head import HEAD_FORMS
from .layers import conv

FILTER_SOURCES = ("probability", "feature")
FILTER_SIZE = 5


class MaskPrediction(nn.Module):
    """(B, C, H, W) coarse feature -> mask (B, H/p, W/p); a larger value is a worse restored cell.

    Of a feature with more than ``channels`` only the first are looked at.

    ``order``: "softmax-then-pool" is what the authors released, "pool-then-softmax" what section 3.3 says.
    ``filter_source``: the 5x5 filters come from the probability itself (released) or from the pooled feature (text).
    ``classes``: 2, or 1 for the form without softmax of Table 3.
    """

    def __init__(
        self,
        channels: int,
        patch_size: int,
        classes: int = 2,
        order: str = HEAD_FORMS[0],
        filter_source: str = "probability",
    ):
        super().__init__()
        if order not in HEAD_FORMS or filter_source not in FILTER_SOURCES or classes not in (1, 2):
            raise InputError(
                f"mask: order={order!r}, filter_source={filter_source!r}, classes={classes!r} is not a mask module; "
                f"order is one of {HEAD_FORMS}, filter_source one of {FILTER_SOURCES}, classes 1 or 2"
            )
        self.channels, self.patch_size = channels, patch_size
        self.order = order
        self.filter_source = filter_source
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = conv(channels, classes, 3)
        self.conv_kernel = conv(1 if filter_source == "probability" else channels, FILTER_SIZE**2, 1)

    def forward(self, feature: Tensor) -> Tensor:
        weight, bias = self.conv_kernel.parameters()
        return dynamic_filter(*self._probability(feature), weight, bias)

    def select(self, feature: Tensor, k: int, order: str, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The mask, and the indices int32 (B, min(k, cells)) of the cells to refine, by ``select_patches``."""
        weight, bias = self.conv_kernel.parameters()
        return filter_and_select(*self._probability(feature), weight, bias, k, order, seed)

    def part(self, feature: Tensor) -> Tensor:
        """The channels that are looked at."""
        if feature.shape[1] == self.channels:
            return feature
        return feature[:, : self.channels].contiguous(memory_format=torch.channels_last)

    def _probability(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Under-SR probability (B, H/p, W/p) and what its filters are made from (B, S, H/p, W/p)."""
        feature = self.part(feature)
        (weight1, bias1), (weight2, bias2) = self.conv1.parameters(), self.conv2.parameters()
        probability = mask_head(feature, weight1, bias1, weight2, bias2, self.patch_size, self.order)
        if self.filter_source == "probability":
            return probability, probability[:, None]
        return probability, F.avg_pool2d(feature, self.patch_size)
