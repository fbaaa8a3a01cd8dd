"""One call of every operator, for tests that compare backends with one another or run on several streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pixel_layers import arguments as pixel_layer
from torch import Tensor

from mga_kernels import ops
from mga_kernels.ops.convolution.layout import pitch, pixels
from mga_kernels.ops.convolution.map_layout import empty_map, write
from mga_kernels.ops.registry import Backend
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord, SlotRecord, StageRecord

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
    cells = random(generator, 40, 3, 16, 16).to(dtype)
    small = torch.randint(256, (2, 21, 30, 3), generator=generator, dtype=torch.uint8)
    return {
        "mask_head": (feature, *(tensor.to(dtype) for tensor in head), 4, "softmax-then-pool"),
        "dynamic_filter": (probability, probability[:, None], *filters),
        "select_patches": ((probability * 20).round(), 20, "largest", 0),
        "filter_and_select": (probability, probability[:, None], *filters, 20, "largest", 0),
        "gather_patches": (feature, indices, 4, 1),
        "paste_patches_": (random(generator, 2, 3, 96, 128).to(dtype), cells, indices),
        "high_pass": (small, 8),
        "image_to_input": (small, 24, 32, 1.0, dtype),
        "output_to_image": (random(generator, 2, 3, 24, 32).to(dtype), 21, 30, 1.0),
        **convolution_cases(generator),
        "convolve_pixels_": pixel_layer("a counted list with zeros", dtype, generator),
    }


def planes(generator: torch.Generator, pairs: int, height: int, width: int) -> Tensor:
    """Pair planes with a border of zeros."""
    data = torch.zeros(pairs, height + 2, pitch(width), 2, dtype=torch.bfloat16)
    pixels(data, height, width).copy_(random(generator, pairs, height, width, 2))
    return data


def float_map(generator: torch.Generator, channels: int, height: int, width: int) -> Tensor:
    """A float map with a border of zeros."""
    data = empty_map(channels, height, width)
    write(data, random(generator, channels, height, width))
    return data


def convolution_cases(generator: torch.Generator) -> dict[str, Arguments]:
    """Arguments of the operators of the CPU convolutions: planes of 9x20 pixels, and patches of 6x6."""
    x, out = planes(generator, 3, 9, 20), planes(generator, 3, 9, 20)
    grid, cells = planes(generator, 3, 20, 20), torch.tensor([[5, 0, 3, 2, 7]], dtype=torch.int32)
    kernel = random(generator, 4, 6, 3, 3).bfloat16()
    packed, epilogue = ops.pack_pair_weight(kernel), random(generator, 3, 4)
    stages = [
        StageRecord(x=0, x_pair=0, out=2, out_pair=0, size=3, lead=1),
        StageRecord(x=2, x_pair=0, out=1, out_pair=1, size=3, skip=2, statistics=0),
    ]
    slots = [SlotRecord(1), SlotRecord(1), SlotRecord(1, pairs=3, rows=4)]
    weights, epilogues = [packed, packed[: packed.numel() * 2 // 3]], [epilogue, epilogue]
    factors = random(generator, 6, 6)
    map_grid, map_factors = float_map(generator, 24, 27, 20), random(generator, 6, 24)
    map_kernel = random(generator, 12, 10, 3, 3)
    of_maps = [ops.pack_map_weight(map_kernel, 4), ops.pack_map_weight(random(generator, 3, 12, 5, 5))]
    layers = [
        LayerRecord(x=0, inputs=10, out=1, outputs=12, size=3, tile=4, skip=1, tiles=0, statistics=0),
        LayerRecord(x=1, inputs=12, out=2, outputs=3, size=5),
    ]
    return {
        "convolve_maps_": (
            [float_map(generator, 10, 9, 20), float_map(generator, 12, 9, 20), torch.zeros(3, 9, 20)],
            [MapRecord(), MapRecord(), MapRecord()],
            [],
            of_maps,
            [random(generator, 4, 16), random(generator, 4, 8)],
            layers,
            [torch.tensor([0, 3, 4, 13], dtype=torch.int32)],
            [torch.zeros(2, 12, dtype=torch.float64)],
            FrameRecord(9, 20),
            1.0,
            None,
        ),
        "map_gather_": (map_grid, float_map(generator, 24, 8, 16), 3, 8, 16, cells, 4, 2, 2, 1),
        "map_grid_scale_": (map_grid, float_map(generator, 24, 27, 20), None, map_factors, map_factors, 6, 6, 2, 0.2),
        "map_grid_statistics": (map_grid, 3, 5, 6, 6, 2),
        "pack_map_weight": (map_kernel, 6),
        "pack_pair_weight": (kernel, 1, False),
        "pair_chain_": (
            [x, out],
            slots,
            [],
            weights,
            epilogues,
            stages,
            [torch.zeros(2, 4, dtype=torch.float64)],
            FrameRecord(9, 20),
            1.0,
            None,
        ),
        "pair_gather_": (grid, planes(generator, 3, 8, 16), 3, 8, 16, cells, 4, 1, 2),
        "pair_grid_scale_": (grid, planes(generator, 3, 20, 20), None, factors, factors, 6, 6, 2, 0.2),
        "pair_grid_statistics": (grid, 3, 5, 6, 6, 2),
        "pair_interpolate_": (out, 0, random(generator, 6, 3, 5), 9, 20),
        "pair_pool": (x, 0, 3, 9, 20, 3, 2),
    }


# What moves or chooses values gives the same bits everywhere; the mask that a choice depends on is rounded.
EXACT = {"select_patches", "gather_patches", "paste_patches_", "image_to_input", "output_to_image"}
EXACT |= {"high_pass", "map_gather_", "map_grid_scale_", "map_grid_statistics"}
EXACT |= {"pack_pair_weight", "pair_gather_", "pair_grid_statistics", "pair_interpolate_", "pair_pool"}
ROUNDED = {"convolve_maps_": 1e-4}  # its tiles round more than a plain sum does


def moved(arguments: Arguments, device: str) -> Arguments:
    """On the device, and copies of their own, so that an operator in place changes nothing of another run."""

    def of(argument: Any) -> Any:
        if isinstance(argument, list):
            return [of(item) for item in argument]
        return argument.to(device, copy=True) if isinstance(argument, Tensor) else argument

    return tuple(map(of, arguments))


def results(op: str, backend: Backend, arguments: Arguments) -> tuple[Tensor, ...]:
    result = backend.run(*arguments)
    if op in ("pair_chain_", "convolve_maps_"):  # it gives statistics, and changes its tensors
        return (arguments[0][-1], *result)
    return result if isinstance(result, tuple) else (result,)


def assert_agree(op: str, first: str, second: str, arguments: Arguments) -> None:
    """Both backends give the same for these arguments, as far as rounding lets them."""
    backends = ops.operators()[op].backends
    both = []
    for name in (first, second):
        first = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        mine = moved(arguments, str(first.device))
        refused = backends[name].can_run(*mine)
        assert refused is None, f"{op} on {name}: {refused}"
        both.append(results(op, backends[name], mine))
    if op == "filter_and_select":  # each has the indices of its own mask
        for mask, indices in both:
            assert torch.equal(indices, ops.select_patches(mask, *arguments[4:]))
        both = [each[:1] for each in both]
    for one, other in zip(*both, strict=True):
        tolerance = 0.0 if op in EXACT else 0.03 if one.dtype.itemsize == 2 else ROUNDED.get(op, 1e-5)
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
