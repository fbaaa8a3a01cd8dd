"""Checks of what ``MaskGuidedSR`` is given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..networks import VARIANTS
from ..ops.select_patches import SELECTIONS
from ..quantities import check_whole_number

WHOLE = "whole"  # the variant of a network without a mask
KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # of tensors; PyTorch computes with no others
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # which the device meta cannot say
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise InputError(
            f"device {str(device)!r} cannot be used here ({reason}); choose auto, cpu or, with a GPU, cuda"
        ) from None
    return chosen


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if dtype == "auto":
        return torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not supported; choose auto or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def check_whole(**given: object) -> None:
    """InputError where something is given that only a network with a mask has a use for."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise InputError(
            f"this is a whole network, which has no mask, so {', '.join(names)} cannot be given; leave it out and the "
            "network runs as it is, or take a mask-guided one, such as span-x4-regions or what mga convert makes of it"
        )


def check_size(height: object, width: object) -> tuple[int, int]:
    """Height and width of an image in pixels."""
    return check_whole_number("height of an image", height, 1), check_whole_number("width of an image", width, 1)


def check_tensor(image: Tensor, variant: str, selection: str | None) -> None:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        given = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise InputError(
            f"MaskGuidedSR: expected a float tensor (B, 3, H, W) with values in [0, 1], got {given}; "
            "for photographs use .upscale()"
        )
    if 0 in image.shape:
        raise InputError(f"MaskGuidedSR: the tensor is empty: {tuple(image.shape)}")
    if image.is_meta or image.layout != torch.strided:
        kind = "on the device meta" if image.is_meta else f"of layout {str(image.layout).removeprefix('torch.')}"
        raise InputError(f"MaskGuidedSR: expected a tensor that holds every value, got one {kind}; give a dense one")
    if image.dtype not in KINDS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in KINDS)
        raise InputError(f"MaskGuidedSR: expected a tensor of {kinds}, got {image.dtype}; convert it with to()")
    low, high = torch.aminmax(image)
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise InputError(
            f"MaskGuidedSR: values must be numbers in [0, 1], got {float(low):g} to {float(high):g}; "
            "divide 8-bit values by 255 and remove NaN"
        )
    for name, value, allowed in (("variant", variant, (*VARIANTS, WHOLE)), ("selection", selection, SELECTIONS)):
        if value not in allowed and not (name == "selection" and value is None):
            raise InputError(f"MaskGuidedSR: {name} {value!r} does not exist; choose one of {', '.join(allowed)}")


def check_out(image: object, out: np.ndarray | None, height: int, width: int) -> Tensor | None:
    """``out`` as a tensor; InputError where it cannot take the ``height`` x ``width`` result for ``image``."""
    if out is None:
        return None
    if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        raise InputError("upscale: out= takes the result of a uint8 array (H, W, 3) only; leave it out")
    expected = (height, width, 3)
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != expected:
        given = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"upscale: out must be a uint8 array {expected}, got {given}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("upscale: out must be contiguous and writeable")
    return torch.from_numpy(out)
