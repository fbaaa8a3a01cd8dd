"""``output_to_image``: what a network gives -> bytes of a picture, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference

DTYPES = (*FLOATS, torch.float64)


def output_to_image(output: Tensor, height: int, width: int, gain: float = 1.0) -> Tensor:
    """Clamp, round, crop and convert.

    ``output`` floating (B, 3, H, W), any strides -> uint8 (B, ``height``, ``width``, 3), contiguous, of its top left
    corner: round(255 * clamp(gain * output, 0, 1)), half to even, in float32 (float64 for float64); NaN becomes 0.
    ``gain`` is 1 / 255 for networks that work in 0..255. Raises InputError for another shape or dtype.
    """
    op = "output_to_image"
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] != 3 or not output.is_floating_point():
        raise InputError(f"{op}: output must be a floating tensor (B, 3, H, W), got {describe(output)}")
    height = check_count(op, "height", height, 1)
    width = check_count(op, "width", width, 1)
    if height > output.shape[2] or width > output.shape[3]:
        raise InputError(f"{op}: a {height}x{width} image does not fit in an output of {tuple(output.shape[2:])}")
    return OPERATOR(output, height, width, float(gain))


register_fake("output_to_image")(reference.fake)
OPERATOR = Operator[Tensor](
    "output_to_image",
    TritonBackend("output_to_image", f"{__name__}.triton", reference.output_to_image, FLOATS),
    NativeBackend("output_to_image", "cpu", DTYPES),
    Backend(reference.output_to_image),
)
