"""One call of every operator, for tests that compare backends with one another or run on several streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mga_kernels import ops
from mga_kernels.ops.registry import Backend

Arguments = tuple[Any, ...]


def random(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=generator)


def some_cells(cells: int, count: int, generator: torch.Generator) -> Tensor:
    chosen = [torch.randperm(cells, generator=generator)[:count].sort().values for _ in range(2)]
    return torch.stack(chosen).int()


def convolutions(generator: torch.Generator, *shapes: Sequence[int]) -> list[Tensor]:
    return [random(generator, *shape, scale=0.1) for shape in shapes]


def cases(generator: torch.Generator, dtype: torch.dtype) -> dict[str, Arguments]:
    """Arguments on the CPU by operator, as its backends take them: 24x32 features of 16 channels, cells of 4x4."""
    feature = random(generator, 2, 16, 24, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    probability = torch.rand(2, 6, 8, generator=generator)
    filters = (random(generator, 25, 1, 1, 1), random(generator, 25))
    indices = some_cells(48, 20, generator)
    head = convolutions(generator, (16, 16, 3, 3), (16,), (2, 16, 3, 3), (2,))
    chain = convolutions(generator, (3, 16, 16, 3, 3), (3, 16), (3, 16))
    patches = random(generator, 40, 48, 4, 4, scale=0.5).add(0.5).to(dtype)
    cells = random(generator, 40, 3, 16, 16).to(dtype)
    image = torch.randint(256, (2, 3, 96, 128), generator=generator, dtype=torch.uint8)
    small = torch.randint(256, (2, 21, 30, 3), generator=generator, dtype=torch.uint8)
    half = torch.float16 if dtype == torch.float32 else dtype
    return {
        "mask_head": (feature, *(tensor.to(dtype) for tensor in head), 4, "softmax-then-pool"),
        "dynamic_filter": (probability, probability[:, None], *filters),
        "select_patches": ((probability * 20).round(), 20, "largest", 0),
        "filter_and_select": (probability, probability[:, None], *filters, 20, "largest", 0),
        "gather_patches": (feature, indices, 4, 1),
        "paste_patches_": (random(generator, 2, 3, 96, 128).to(dtype), cells, indices),
        "paste_shuffled_": (image, patches, indices, 4, 1.0),
        "image_to_input": (small, 24, 32, 1.0, dtype),
        "output_to_image": (random(generator, 2, 3, 24, 32).to(dtype), 21, 30, 1.0),
        "conv_chain": (random(generator, 40, 16, 6, 6).to(half), *(t.to(half) for t in chain), [-1, 0, -1], 1),
    }


# What moves or chooses values gives the same bits everywhere; the mask that a choice depends on is rounded.
EXACT = {"select_patches", "gather_patches", "paste_patches_", "paste_shuffled_", "image_to_input", "output_to_image"}


def moved(arguments: Arguments, device: str) -> Arguments:
    """On the device, and copies of their own, so that an operator in place changes nothing of another run."""
    return tuple(a.to(device, copy=True) if isinstance(a, Tensor) else a for a in arguments)


def results(op: str, backend: Backend, arguments: Arguments) -> tuple[Tensor, ...]:
    result = backend.run(*arguments)
    return result if isinstance(result, tuple) else (result,)


def assert_agree(op: str, first: str, second: str, arguments: Arguments) -> None:
    """Both backends give the same for these arguments, as far as rounding lets them."""
    backends = ops.operators()[op].backends
    both = []
    for name in (first, second):
        mine = moved(arguments, str(arguments[0].device))
        refused = backends[name].can_run(*mine)
        assert refused is None, f"{op} on {name}: {refused}"
        both.append(results(op, backends[name], mine))
    if op == "filter_and_select":  # each has the indices of its own mask
        for mask, indices in both:
            assert torch.equal(indices, ops.select_patches(mask, *arguments[4:]))
        both = [each[:1] for each in both]
    for one, other in zip(*both, strict=True):
        tolerance = 0.0 if op in EXACT else 1e-5 if one.dtype == torch.float32 else 0.03
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
