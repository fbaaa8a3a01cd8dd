"""``paste_shuffled_``: what the last convolution of the Refine-Net gives, into the final image, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_writing
from ...errors import InputError
from ..grid import check_count, check_divides, check_indices, check_same_device, describe
from ..registry import FLOATS, Backend, NativeInPlaceBackend, Operator, TritonBackend
from . import reference

OP = "paste_shuffled_"
IMAGE_DTYPES = (*FLOATS, torch.float64, torch.uint8)


def paste_shuffled_(image: Tensor, patches: Tensor, indices: Tensor, scale: int = 1, gain: float = 1.0) -> Tensor:
    """Pixel shuffle, clamp, conversion and paste of the refined patches; returns the image, changed in place.

    ``image`` (B, C, Hs, Ws) of any strides (also a permuted (B, H, W, C) image), floating in [0, 1] or uint8;
    ``patches`` (B * K, C r^2, m, m), floating, r = ``scale`` of the shuffle (1: none), cells of q = r m pixels;
    ``indices`` int32 (B, K):

        v = clamp(gain * pixel_shuffle(patches, r), 0, 1)      in float32 (float64 for float64 patches)
        paste_patches_(image, v, indices)                      a uint8 image receives round(255 v), half to even

    ``gain`` is 1 / 255 for networks that work in 0..255. NaN becomes NaN, and 0 in uint8. Not differentiable but by
    the reference. Raises InputError for wrong shapes or dtypes; indices as for ``paste_patches_``.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or image.dtype not in IMAGE_DTYPES:
        raise InputError(f"{OP}: image must be a floating or uint8 tensor (B, C, H, W), got {describe(image)}")
    if not isinstance(patches, Tensor) or patches.ndim != 4 or not patches.is_floating_point():
        raise InputError(f"{OP}: patches must be a floating tensor (B*K, C*r*r, m, m), got {describe(patches)}")
    scale = check_count(OP, "scale", scale, 1)
    check_indices(OP, indices, image.shape[0])
    count, channels = indices.shape[0] * indices.shape[1], image.shape[1] * scale * scale
    if tuple(patches.shape[:2]) != (count, channels) or not 0 < patches.shape[2] == patches.shape[3]:
        raise InputError(f"{OP}: patches must be ({count}, {channels}, m, m), got {tuple(patches.shape)}")
    check_divides(OP, "image", image.shape[2], image.shape[3], patches.shape[2] * scale)
    check_same_device(OP, image, patches, indices)
    if any(size > 1 and stride == 0 for size, stride in zip(image.shape, image.stride(), strict=True)):
        raise InputError(f"{OP}: the image is an expanded tensor, whose pixels share memory; clone it first")
    return OPERATOR(image, patches, indices.contiguous(), scale, float(gain))


def _cuda_refuses(image: Tensor, patches: Tensor, *_: object) -> str | None:
    return "torch.float64 of the patches is not among its dtypes" if patches.dtype == torch.float64 else None


def _triton_refuses(image: Tensor, patches: Tensor, *arguments: int | float) -> str | None:
    return (
        "patches are float64, and the gain would reach the kernel as float32"
        if patches.dtype == torch.float64
        else None
    )


register_writing(OP)
OPERATOR = Operator[Tensor](
    OP,
    NativeInPlaceBackend(OP, "cuda", tuple({*IMAGE_DTYPES} - {torch.float64}), _cuda_refuses),
    TritonBackend(OP, f"{__name__}.triton", reference.paste_shuffled_, IMAGE_DTYPES, _triton_refuses),
    NativeInPlaceBackend(OP, "cpu", IMAGE_DTYPES),
    Backend(reference.paste_shuffled_),
)
