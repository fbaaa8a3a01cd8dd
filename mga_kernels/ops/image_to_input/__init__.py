"""``image_to_input``: bytes of a photograph -> what a network reads, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference

DTYPES = (*FLOATS, torch.float64)


def image_to_input(
    image: Tensor, height: int, width: int, value_range: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalise, convert, and extend an image by reflection.

    ``image`` uint8 (B, H, W, 3), any strides -> ``dtype`` (B, 3, ``height``, ``width``), channels-last, white is
    ``value_range``; height >= H and width >= W are filled at the bottom and on the right by reflection, the edge not
    repeated, as often as needed. Each value is byte * (value_range / 255), computed in float32 (float64 for float64)
    and rounded once to ``dtype``. Raises InputError for another shape or dtype.
    """
    op = "image_to_input"
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[3] != 3 or image.dtype != torch.uint8:
        raise InputError(f"{op}: image must be a uint8 tensor (B, H, W, 3), got {describe(image)}")
    if 0 in image.shape[1:]:
        raise InputError(f"{op}: the image is empty: {tuple(image.shape)}")
    height = check_count(op, "height", height, image.shape[1])
    width = check_count(op, "width", width, image.shape[2])
    if dtype not in DTYPES:
        raise InputError(f"{op}: dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    return OPERATOR(image, height, width, float(value_range), dtype)


def _triton_refuses(image: Tensor, *arguments: int | float) -> str | None:
    return (
        "dtype is float64, and the scale would reach the kernel as float32" if arguments[3] == torch.float64 else None
    )


register_fake("image_to_input")(reference.fake)
OPERATOR = Operator[Tensor](
    "image_to_input",
    TritonBackend("image_to_input", f"{__name__}.triton", reference.image_to_input, (torch.uint8,), _triton_refuses),
    NativeBackend("image_to_input", "cpu", (torch.uint8,)),
    Backend(reference.image_to_input),
)
