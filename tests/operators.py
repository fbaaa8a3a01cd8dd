"""What the tests of operators share: running one on a forced backend, layouts of a tensor, far-away memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from mga_kernels import ops
from mga_kernels.errors import BackendError


def run(op: str, backend: Any, *arguments: Any) -> Any:
    """Call the operator with its tensors on the backend's device, and make sure that this backend ran.

    The test is skipped where the operator has no such backend, or this one does not take the dtype.
    """
    if backend.name not in ops.operators()[op].backends:
        pytest.skip(f"{op} has no {backend.name} backend")
    moved = [argument.to(backend.device) if isinstance(argument, Tensor) else argument for argument in arguments]
    try:
        with uninitialised_memory_is_poisoned():
            result = getattr(ops, op)(*moved)
    except BackendError as error:
        if "is not among its dtypes" in str(error):
            pytest.skip(str(error))
        raise
    assert ops.last_backend(op) == backend.name
    return result


@contextmanager
def uninitialised_memory_is_poisoned() -> Iterator[None]:
    """New tensors that an operator does not write come out as NaN, or the largest integer."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def layouts(image: Tensor) -> dict[str, Tensor]:
    """The values of a (B, C, H, W) tensor under different strides."""
    batch, channels, height, width = image.shape
    wide = torch.full((batch, 2 * channels, height + 3, 2 * width), 99, dtype=image.dtype, device=image.device)
    wide[:, ::2, 1 : 1 + height, ::2] = image
    narrow = torch.full((batch, height, width, channels + 2), 99, dtype=image.dtype, device=image.device)
    narrow[..., 1:-1] = image.permute(0, 2, 3, 1)
    return {
        "contiguous": image.contiguous(),
        "channels-last": image.contiguous(memory_format=torch.channels_last),
        "transposed": image.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": wide[:, ::2, 1 : 1 + height, ::2],
        "sliced channels-last": narrow[..., 1:-1].permute(0, 3, 1, 2),
        "offset": torch.cat([image, image])[batch:],
    }


def far_apart(tensor: Tensor) -> Tensor:
    """The same values with the images of the batch 2^31 elements apart; only the pages in use take memory."""
    dense = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()
    distance = 2**31 + 64
    memory = torch.empty(distance * (len(tensor) - 1) + dense[0].numel(), dtype=tensor.dtype)
    return memory.as_strided(tensor.shape, (distance, *dense.stride()[1:])).copy_(tensor)


def largest_error(result: Tensor, exact: Tensor) -> float:
    return float((result.double().cpu() - exact).abs().max())


def assert_as_exact_as_torch(result: Tensor, of_torch: Tensor | list[Tensor], exact: Tensor) -> None:
    """No more than twice the error that torch's own kernels make in the same dtype, and half a unit in float32.

    Torch takes other kernels for other layouts: of several results of its, the worst counts.
    """
    assert exact.isfinite().all()
    results = of_torch if isinstance(of_torch, list) else [of_torch]
    ours, theirs = largest_error(result, exact), max(largest_error(other, exact) for other in results)
    assert ours <= 2 * theirs + 6e-8 * max(1.0, float(exact.abs().max())), (ours, theirs)


def both_layouts(image: Tensor) -> list[Tensor]:
    return [image.contiguous(), image.contiguous(memory_format=torch.channels_last)]
