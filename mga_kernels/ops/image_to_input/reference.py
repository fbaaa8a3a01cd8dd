"""Definition of ``image_to_input`` in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..grid import mirror_indices


def fake(image: Tensor, height: int, width: int, value_range: float, dtype: torch.dtype) -> Tensor:
    """The result without its values."""
    size = (image.shape[0], 3, height, width)
    return torch.empty(size, dtype=dtype, device=image.device, memory_format=torch.channels_last)


def image_to_input(image: Tensor, height: int, width: int, value_range: float, dtype: torch.dtype) -> Tensor:
    for axis, length in ((1, height), (2, width)):
        if image.shape[axis] != length:
            image = image.index_select(axis, mirror_indices(image.shape[axis], length, image.device))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    values = image.permute(0, 3, 1, 2).to(wide) * (value_range / 255)
    return values.to(dtype).contiguous(memory_format=torch.channels_last)
