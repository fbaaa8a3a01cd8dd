"""What the CUDA kernel of ``conv_chain`` takes, and the layout that it wants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from ..registry import NativeBackend

OP = "conv_chain"
DTYPES = (torch.float16, torch.bfloat16)  # float32 has no tensor cores, and without them launches are the least cost
MAX_CHANNELS, MAX_SIDE, MAX_LAYERS = 64, 16, 256
SHARED_BYTES = 101_376  # of a block on the smallest of the GPUs meant, sm_86, sm_89 and sm_120
STAGES = 4  # taps of weights in shared memory


def pack_weights(weights: Tensor) -> Tensor:
    """The same (L, C, C, 3, 3) values with the input channels innermost in memory; a view where they are so already."""
    return weights.movedim(2, 4).contiguous().movedim(4, 2)


def live_states(skips: Sequence[int]) -> int:
    """How many states must be held at once; a layer may write where one lies that is not read later."""
    layers = len(skips)
    last = list(range(layers + 1))
    for layer, skip in enumerate(skips):
        if skip >= 0:
            last[skip] = max(last[skip], layer)
    return max(1 + sum(last[state] > layer for state in range(layer + 1)) for layer in range(layers))


def shared_bytes(channels: int, side: int, states: int) -> int:
    """Shared memory of the smallest block that takes such patches, as conv_chain.cuh lays it out."""
    depth = (channels + 15) // 16
    wide = 16 * (depth if depth in (1, 3, 4) else 3)
    pitch = 2 * (wide + 8)
    rows = next(rows for rows in (64, 128, 256) if rows >= side * side)
    return pitch + STAGES * wide * pitch + 2 * 2 * 4 * wide + states * rows * pitch


def refuses(
    patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int
) -> str | None:
    channels, side, layers = patches.shape[1], patches.shape[2], weights.shape[0]
    if channels > MAX_CHANNELS or side > MAX_SIDE or layers > MAX_LAYERS:
        return (
            f"{layers} layers of {channels} channels on {side}x{side}; it takes up to {MAX_LAYERS} layers of up to "
            f"{MAX_CHANNELS} channels on patches of up to {MAX_SIDE}x{MAX_SIDE}"
        )
    states = live_states(skips)
    needed = shared_bytes(channels, side, states)
    if needed > SHARED_BYTES:
        return f"{states} states must be kept, for which a block needs {needed:,} bytes of {SHARED_BYTES:,} shared"
    return None


def conv_chain(
    patches: Tensor, weights: Tensor, biases: Tensor, slopes: Tensor, skips: Sequence[int], crop: int
) -> Tensor:
    if weights.stride(2) != 1:  # one launch more, where the caller has not packed them
        weights = pack_weights(weights)
    return _native.call(OP, patches, weights, biases, slopes, skips, crop)


BACKEND = NativeBackend(OP, "cuda", DTYPES, refuses)
BACKEND.run = conv_chain
