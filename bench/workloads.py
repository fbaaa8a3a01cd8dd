"""What the benchmarks run: each operator on the tensors of one 960x540 image under RFDN x4.

The coarse feature is 50x544x960 (540 rows padded to a multiple of p = 4), so there are 136x240 = 32,640 cells; K is the
paper's 1000 or all of them. A workload knows how to check itself, and its floor: the bytes that any implementation must
move over the copy bandwidth measured here, or its operations over the matrix rate measured here, whichever is longer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mga_kernels import ops

CHANNELS, HEIGHT, WIDTH, PATCH_SIZE, HALO, SCALE = 50, 544, 960, 4, 1, 4
ROWS, COLUMNS = HEIGHT // PATCH_SIZE, WIDTH // PATCH_SIZE
CELLS = ROWS * COLUMNS
COUNTS = {"K=1000": 1000, "all": CELLS}


@dataclass(frozen=True)
class Machine:
    """Rates measured on one device: bytes/s read plus written by a copy, operations/s of a matrix product."""

    copy_bandwidth: float
    matrix_rate: float


@dataclass(frozen=True)
class Workload:
    op: str
    case: str
    call: Callable[[], object]
    check: Callable[[], None]
    bytes_moved: int
    operations: int = 0

    def floor(self, machine: Machine) -> float:
        """Seconds below which no implementation can go on this machine."""
        return max(self.bytes_moved / machine.copy_bandwidth, self.operations / machine.matrix_rate)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(call: Callable[[], object], device: str, repeats: int = 7) -> float:
    call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(device: str, dtype: torch.dtype = torch.float32) -> Machine:
    source = torch.ones(64 << 20, device=device, dtype=torch.uint8)
    source = source.repeat(8 if device == "cuda" else 2)
    target = torch.empty_like(source)
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return Machine(
        copy_bandwidth=2 * source.numel() / median_seconds(lambda: target.copy_(source), device),
        matrix_rate=2 * n**3 / median_seconds(lambda: a @ b, device),
    )


def _mask(device: str) -> torch.Tensor:
    """Float32 (1, ROWS, COLUMNS), smooth as a predicted mask is, with some ties."""
    noise = torch.randn(1, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    return (F.avg_pool2d(noise, 5, 1, 2)[0] * 1000).round().div(1000).to(device)


def _feature(device: str, dtype: torch.dtype, channels: int = CHANNELS) -> torch.Tensor:
    feature = torch.randn(1, channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    return feature.to(device, dtype).contiguous(memory_format=torch.channels_last)


def _reference(op: str) -> Callable:
    return ops.operators()[op].backends["reference"].run


def _check_equal(call: Callable[[], torch.Tensor], expected: Callable[[], torch.Tensor]) -> Callable[[], None]:
    def check() -> None:
        if not torch.equal(call(), expected()):
            raise AssertionError("the result is not that of the reference")

    return check


def select_patches(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    mask, k = _mask(device).to(dtype), COUNTS[case]

    def call() -> torch.Tensor:
        return ops.select_patches(mask, k)

    check = _check_equal(call, lambda: _reference("select_patches")(mask, k, "largest", 0))
    return Workload("select_patches", case, call, check, mask.nbytes + 4 * k)


def gather_patches(case: str, device: str, dtype: torch.dtype = torch.float32, channels: int = CHANNELS) -> Workload:
    feature, k = _feature(device, dtype, channels), COUNTS[case]
    indices = ops.select_patches(_mask(device), k)

    def call() -> torch.Tensor:
        return ops.gather_patches(feature, indices, PATCH_SIZE, HALO)

    chosen = torch.zeros(CELLS, device=device).index_fill_(0, indices[0].long(), 1).reshape(1, 1, ROWS, COLUMNS)
    touched = F.max_pool2d(F.interpolate(chosen, scale_factor=PATCH_SIZE), 2 * HALO + 1, 1, HALO).sum()
    read = int(touched) * channels * dtype.itemsize
    written = k * channels * (PATCH_SIZE + 2 * HALO) ** 2 * dtype.itemsize
    check = _check_equal(call, lambda: _reference("gather_patches")(feature, indices, PATCH_SIZE, HALO))
    return Workload("gather_patches", case, call, check, read + written)


def paste_patches(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    side, k = SCALE * PATCH_SIZE, COUNTS[case]
    image = torch.zeros(1, 3, SCALE * HEIGHT, SCALE * WIDTH, device=device, dtype=dtype)
    patches = torch.randn(k, 3, side, side, generator=torch.Generator().manual_seed(3)).to(device, dtype)
    indices = ops.select_patches(_mask(device), k)

    def call() -> torch.Tensor:
        return ops.paste_patches_(image, patches, indices)

    def check() -> None:
        pasted, expected = (paste(image.clone(), patches, indices) for paste in (ops.paste_patches_, reference))
        if not torch.equal(pasted, expected):
            raise AssertionError("the result is not that of the reference")

    reference = _reference("paste_patches_")
    return Workload("paste_patches_", case, call, check, 2 * patches.nbytes)


def mask_head(case: str, device: str, dtype: torch.dtype = torch.float32, channels: int = CHANNELS) -> Workload:
    """``case`` is the order of softmax and pool."""
    feature = _feature(device, dtype, channels)
    generator = torch.Generator().manual_seed(4)
    shapes = ((channels, channels, 3, 3), (channels,), (2, channels, 3, 3), (2,))
    weights = [torch.randn(shape, generator=generator).div(20).to(device, dtype) for shape in shapes]

    def call() -> torch.Tensor:
        return ops.mask_head(feature, *weights, PATCH_SIZE, case)

    def check() -> None:
        # A part of the image against float64 is enough: every cell has the same small neighbourhood.
        part = feature[..., : 8 * PATCH_SIZE, : 8 * PATCH_SIZE]
        exact = _reference("mask_head")(part.double(), *(w.double() for w in weights), PATCH_SIZE, case)
        inner = (slice(None), slice(0, 7), slice(0, 7))  # the last cells see pixels that the part has not
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(call()[inner].double(), exact[inner], atol=tolerance, rtol=0)

    operations = 2 * 9 * HEIGHT * WIDTH * channels * (channels + 2)
    moved = feature.nbytes + sum(weight.nbytes for weight in weights) + CELLS * 4
    return Workload("mask_head", case, call, check, moved, operations)
