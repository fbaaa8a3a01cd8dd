"""``paste_patches_``: refined patches into the coarse image, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_writing
from ...errors import InputError
from ..grid import check_divides, check_indices, check_same_device, describe
from ..registry import FLOATS, Backend, NativeInPlaceBackend, Operator, TritonBackend
from . import reference

OP = "paste_patches_"
DTYPES = (*FLOATS, torch.float64, torch.uint8)


def paste_patches_(image: Tensor, patches: Tensor, indices: Tensor) -> Tensor:
    """Replace the selected cells of the coarse image by the refined patches, and return the image.

    ``image`` (B, C, Hs, Ws), ``patches`` (B * K, C, q, q) of the same dtype, ``indices`` int32 (B, K), q = s * p
    dividing Hs and Ws:

        image[b, c, row * q + y, column * q + x] = patches[b * K + i, c, y, x]
        with indices[b, i] = row * (Ws / q) + column

    Any strides, without a copy; the image must not be an expanded tensor. Where a cell is named twice, the later patch
    stays with ``reference`` and ``cpu``; with ``cuda`` and ``triton`` either may. An index outside the grid raises
    InputError on the CPU and is left out on other devices. Differentiable in image and patches, by the reference, as
    any in-place operation of torch: the image must not be a leaf that requires a gradient.
    """
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise InputError(f"{OP}: image must be a tensor (B, C, H, W), got {describe(image)}")
    if not isinstance(patches, Tensor) or patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
        raise InputError(f"{OP}: patches must be a tensor (B*K, C, q, q), got {describe(patches)}")
    if patches.dtype != image.dtype:
        raise InputError(f"{OP}: image is {image.dtype} and patches are {patches.dtype}; convert one of them first")
    check_indices(OP, indices, image.shape[0])
    expected = (indices.shape[0] * indices.shape[1], image.shape[1])
    if tuple(patches.shape[:2]) != expected or patches.shape[2] == 0:
        raise InputError(
            f"{OP}: {indices.shape[0]}x{indices.shape[1]} indices and an image of {image.shape[1]} channels need "
            f"patches ({expected[0]}, {expected[1]}, q, q), got {tuple(patches.shape)}"
        )
    check_divides(OP, "image", image.shape[2], image.shape[3], patches.shape[2])
    check_same_device(OP, image, patches, indices)
    if any(size > 1 and stride == 0 for size, stride in zip(image.shape, image.stride(), strict=True)):
        raise InputError(f"{OP}: the image is an expanded tensor, whose pixels share memory; clone it first")
    return OPERATOR(image, patches, indices.contiguous())


register_writing(OP)
OPERATOR = Operator[Tensor](
    OP,
    NativeInPlaceBackend(OP, "cuda", DTYPES),
    TritonBackend(OP, f"{__name__}.triton", reference.paste_patches_, DTYPES),
    NativeInPlaceBackend(OP, "cpu", DTYPES),
    Backend(reference.paste_patches_),
)
