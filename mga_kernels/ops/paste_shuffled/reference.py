"""Definition of ``paste_shuffled_`` in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..paste_patches.reference import paste_patches_


def paste_shuffled_(image: Tensor, patches: Tensor, indices: Tensor, scale: int, gain: float) -> Tensor:
    wide = patches.double() if patches.dtype == torch.float64 else patches.float()
    values = (F.pixel_shuffle(wide, scale) * gain).clamp(0, 1)
    if image.dtype == torch.uint8:
        values = (values * 255).round().nan_to_num(0)
    return paste_patches_(image, values.to(image.dtype), indices)
