"""``conv_chain``: 3x3 convolutions one after another over a batch of small patches, which never leave the chip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_same_device, describe
from ..registry import Backend, ComposedBackend, Operator
from . import cpu, cuda, reference
from .cuda import pack_weights as pack_weights


def conv_chain(
    patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int = 0
) -> Tensor:
    """The blocks of a Refine-Net, as far as they are 3x3 convolutions of C to C channels with activations and skips.

    ``patches`` (N, C, q, q), ``weights`` (L, C, C, 3, 3), ``biases`` (L, C), ``slopes`` (L, C), ``skips`` L numbers ->
    (N, C, q - 2 crop, q - 2 crop), channels-last, of the same dtype. With state 0 the patches, layer l = 0 .. L - 1 is

        state l + 1 = prelu(conv2d(state l, weights[l], biases[l], padding=1) + state skips[l], slopes[l])

    where skips[l] in 0 .. l names a state and -1 none. Slope 0 is ReLU, 1 no activation. ``crop`` (0 or 1) leaves out
    the border of the result: with 1 the last layer is an unpadded convolution, which consumes the halo.

    Fastest with channels-last patches and weights whose input channels are innermost in memory (``stride(2) == 1``):
    ``pack_weights`` arranges them so, once.

    Half precision is accumulated in float32, and states are rounded to the dtype between layers. Differentiable by the
    reference. Raises InputError for wrong shapes or dtypes.
    """
    op = "conv_chain"
    if not isinstance(patches, Tensor) or patches.ndim != 4 or not patches.is_floating_point():
        raise InputError(f"{op}: patches must be a floating tensor (N, C, q, q), got {describe(patches)}")
    channels, side = patches.shape[1], patches.shape[2]
    layers = weights.shape[0]
    if side != patches.shape[3]:
        raise InputError(f"{op}: patches must be square, got {tuple(patches.shape)}")
    expected = (
        ("weights", weights, (layers, channels, channels, 3, 3)),
        ("biases", biases, (layers, channels)),
        ("slopes", slopes, (layers, channels)),
    )
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise InputError(f"{op}: {name} must be {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype != patches.dtype:
            raise InputError(f"{op}: {name} are {tensor.dtype} and patches {patches.dtype}; convert one of them first")
    if layers < 1 or len(skips) != layers or any(not -1 <= skip <= layer for layer, skip in enumerate(skips)):
        raise InputError(f"{op}: skips must hold {layers} numbers, the l-th between -1 and l, got {list(skips)}")
    if crop not in (0, 1) or side <= 2 * crop:
        raise InputError(f"{op}: crop must be 0, or 1 for patches of 3x3 and more, got {crop}")
    check_same_device(op, patches, weights, biases, slopes)
    return OPERATOR(patches, weights, biases, slopes, list(skips), crop)


@register_fake("conv_chain")
def _fake(patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int) -> Tensor:
    size = (*patches.shape[:2], patches.shape[2] - 2 * crop, patches.shape[3] - 2 * crop)
    return torch.empty(size, dtype=patches.dtype, device=patches.device, memory_format=torch.channels_last)


OPERATOR = Operator[Tensor](
    "conv_chain",
    cuda.BACKEND,
    ComposedBackend(cpu.conv_chain),
    Backend(reference.conv_chain),
)
