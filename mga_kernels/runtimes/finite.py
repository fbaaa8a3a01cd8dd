"""Numbers too large for 16 bits: noticing them on the device, and what to run instead."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import CheckpointError


def is_finite(values: Tensor) -> Tensor:
    """Whether all values are finite, as a bool of no dimension on their device, in one pass and without waiting."""
    if values.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=values.device)
    if values.ndim == 4 and not values.is_contiguous():  # reductions over other orders than that of memory are slow
        values = values.permute(0, 2, 3, 1)
    low, high = torch.aminmax(values.detach())  # NaN where there is one
    return torch.isfinite(low) & torch.isfinite(high)


def wider(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to run a network in whose values were not finite in ``dtype``.

    CheckpointError for float32, because no image in 0..1 leads a sound network beyond it.
    """
    if dtype == torch.float16 and _computes_bfloat16(device):
        return torch.bfloat16
    if dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    raise CheckpointError(
        "the network gives values that are not finite even in float32, so its weights are damaged or its training "
        "diverged; load another file"
    )


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def explain_widening(dtype: torch.dtype, instead: torch.dtype) -> str:
    """The warning: cause and remedy."""
    narrow, wide = (str(d).removeprefix("torch.") for d in (dtype, instead))
    return (
        f"the network gives values that are not finite in {narrow}, whose largest number is "
        f"{torch.finfo(dtype).max:.3g}; the image is run again in {wide}, and so are those after it. "
        f'Give dtype="{wide}" to run it so from the start'
    )
