"""Which halves of a network may run in bf16, and on what this is tried."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from ..networks import SRNetwork
from ..networks.interface import outputs
from ..system.threads import one_thread

# Root mean square of what bf16 may change, in levels of 255. PAN and RFDN have 0.3 to 0.6 on photographs, a third of
# it from storing the result, for 0.005 dB of PSNR; where it is 1.7, the loss is 0.1 dB.
VISIBLE = 0.7
SIDE = 48  # of the picture it is tried on


def fast_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 (AVX-512 or AMX); PyTorch imitates it elsewhere, which is slow."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # names without promise: absent means no
    return any(getattr(torch.cpu, name, bool)() for name in tests)


def in_bf16(network: SRNetwork) -> tuple[bool, bool]:
    """Whether Base-Net and Refine-Net of a float32 network on the CPU lose nothing visible in bf16.

    A trained bias can be many times what a convolution adds to it; stored in bf16, little is left of the latter. A
    network of others may not run in bf16 at all, where it makes tensors of another type on its way.
    """
    try:
        return _in_bf16(network)
    except RuntimeError:  # by which torch tells of types
        return False, False


def _in_bf16(network: SRNetwork) -> tuple[bool, bool]:
    levels = 255 / network.value_range
    with torch.no_grad(), one_thread():
        image = picture(SIDE, SIDE) * network.value_range
        coarse, *feature = outputs(network.front(image))
        small = copy.deepcopy(network.front).bfloat16()(image.to(network.input_dtype or torch.bfloat16))
        base = refine = _difference(coarse, outputs(small)[0]) * levels < VISIBLE
        if network.back is not None:
            rounded = copy.deepcopy(network.back).bfloat16()(feature[0].bfloat16())
            refine = base and _difference(network.back(feature[0]), rounded) * levels < VISIBLE
    return base, refine


def describe(base: torch.dtype, refine: torch.dtype) -> str:
    """The dtypes of the halves in words."""
    first, second = (str(dtype).removeprefix("torch.") for dtype in (base, refine))
    return first if first == second else f"{first}, Refine-Net in {second}"


def picture(height: int, width: int) -> Tensor:
    """Slopes and waves in colour, as soft as photographs: float32 (1, 3, height, width) in [0, 1]."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) / n for n in (height, width)), indexing="ij")
    slopes = torch.stack([y, x, 1 - (x + y) / 2])
    return (0.4 + 0.2 * slopes + 0.2 * torch.sin(4 * math.pi * x * y))[None]


def _difference(exact: Tensor, found: Tensor) -> float:
    return float((exact - found.float()).square().mean().sqrt())
