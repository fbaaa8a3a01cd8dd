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
from mga_kernels.ops.convolve_pixels.layout import pack_pixel_weight, whole

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


def _filter_arguments(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    shapes = ((1, ROWS, COLUMNS), (25, 1, 1, 1), (25,))
    probability, weight, bias = (torch.rand(shape, generator=generator).to(device, dtype) for shape in shapes)
    return [probability, probability[:, None], weight, bias]


def _check_close(op: str, call: Callable[[], torch.Tensor], *arguments: object, share: float) -> Callable[[], None]:
    """Against the reference in float64; ``share`` of the largest value is the most that may be between them."""

    def check() -> None:
        wide = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
        exact = _reference(op)(*wide)
        torch.testing.assert_close(call().double(), exact, atol=share * float(exact.abs().max()), rtol=0)

    return check


def _share(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 3e-2


def dynamic_filter(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    arguments = _filter_arguments(device, dtype)

    def call() -> torch.Tensor:
        return ops.dynamic_filter(*arguments)

    check = _check_close("dynamic_filter", call, *arguments, share=_share(dtype))
    return Workload("dynamic_filter", case, call, check, 2 * arguments[0].nbytes, 2 * 50 * CELLS)


def filter_and_select(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    arguments, k = _filter_arguments(device, dtype), COUNTS[case]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        return ops.filter_and_select(*arguments, k)

    def check() -> None:
        _check_close("dynamic_filter", lambda: call()[0], *arguments, share=_share(dtype))()
        mask, indices = call()
        if not torch.equal(indices, _reference("select_patches")(mask, k, "largest", 0)):
            raise AssertionError("the result is not that of the reference")

    return Workload("filter_and_select", case, call, check, 2 * arguments[0].nbytes + 4 * k, 2 * 50 * CELLS)


def image_to_input(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    image = torch.randint(0, 256, (1, HEIGHT - 4, WIDTH, 3), generator=torch.Generator().manual_seed(10))
    image = image.to(device, torch.uint8)

    def call() -> torch.Tensor:
        return ops.image_to_input(image, HEIGHT, WIDTH, 1.0, dtype)

    check = _check_equal(call, lambda: _reference("image_to_input")(image, HEIGHT, WIDTH, 1.0, dtype))
    return Workload("image_to_input", case, call, check, image.numel() + 3 * HEIGHT * WIDTH * dtype.itemsize)


def output_to_image(case: str, device: str, dtype: torch.dtype = torch.float32) -> Workload:
    """``case`` is the layout of the output."""
    height, width = SCALE * (HEIGHT - 4), SCALE * WIDTH
    output = torch.rand(1, 3, SCALE * HEIGHT, width, generator=torch.Generator().manual_seed(11)).to(device, dtype)
    layout = torch.channels_last if case == "channels-last" else torch.contiguous_format
    output = output.contiguous(memory_format=layout)

    def call() -> torch.Tensor:
        return ops.output_to_image(output, height, width)

    check = _check_equal(call, lambda: _reference("output_to_image")(output, height, width, 1.0))
    return Workload("output_to_image", case, call, check, 3 * height * width * (1 + dtype.itemsize))


def high_pass(case: str, device: str) -> Workload:
    """Of a picture x4; ``case`` only names it."""
    size, side = (SCALE * HEIGHT, SCALE * WIDTH), 12 * SCALE
    picture = torch.randint(0, 256, (1, *size, 3), generator=torch.Generator().manual_seed(12)).to(device, torch.uint8)

    def call() -> torch.Tensor:
        return ops.high_pass(picture, side)

    check = _check_equal(call, lambda: _reference("high_pass")(picture, side))
    return Workload("high_pass", case, call, check, picture.numel())


def convolve_pixels(case: str, device: str, dtype: torch.dtype = torch.float32, channels: int = CHANNELS) -> Workload:
    """A layer of the networks on the whole image: "skip" with a residual, "bytes" the last one, into a picture x4."""
    generator = torch.Generator().manual_seed(14)
    outputs = channels if case == "skip" else 3 * SCALE**2
    x, skip = (torch.randn(HEIGHT, WIDTH, whole(channels), generator=generator).to(device, dtype) for _ in range(2))
    weight, factors = pack_pixel_weight(torch.randn(outputs, channels, 3, 3, generator=generator) / 24, dtype)
    epilogue = torch.rand(5, len(factors), generator=generator)
    epilogue[4] = factors
    weight, epilogue = weight.to(device), epilogue.to(device)
    if case == "skip":
        out, more = torch.empty_like(skip[..., :channels]), {"skip": skip[..., :channels], "activation": 1}
    else:
        out = torch.empty(1, SCALE * HEIGHT, SCALE * WIDTH, 3, dtype=torch.uint8, device=device)
        more = {"shuffle": SCALE, "gain": 0.3}

    def call() -> torch.Tensor:
        return ops.convolve_pixels_(out, x, weight, epilogue, **more)

    def check() -> None:
        """A part of the image is enough: every pixel has the same small neighbourhood."""
        exact = torch.empty_like(out[:, : 16 * SCALE] if case == "bytes" else out[:16])
        of_skip = more["skip"][:16] if case == "skip" else None
        numbers = 3, 1, more.get("shuffle", 1), 0, more.get("activation", 0), [], more.get("gain", 1.0), 0
        none = [None] * 7
        _reference("convolve_pixels_")(exact, x[:16], weight, epilogue, of_skip, *none, *numbers)
        got, seen = (call()[0, : 15 * SCALE], exact[0, : 15 * SCALE]) if case == "bytes" else (call()[:15], exact[:15])
        allowed = 1.0 if case == "bytes" else _share(dtype) * float(seen.abs().max())
        torch.testing.assert_close(got.float(), seen.float(), atol=allowed, rtol=0)

    moved = x.nbytes + weight.nbytes + out.nbytes + (skip.nbytes if case == "skip" else 0)
    return Workload("convolve_pixels_", case, call, check, moved, 2 * 9 * HEIGHT * WIDTH * channels * outputs)


def everything(device: str, dtype: torch.dtype, channels: int) -> list[Callable[[], Workload]]:
    """Makers of every workload in one dtype, so that only one holds its tensors at a time."""
    made: list[Callable[[], Workload]] = [
        lambda: mask_head("softmax-then-pool", device, dtype, channels),
        lambda: image_to_input("bytes", device, dtype),
        lambda: output_to_image("channels-last", device, dtype),
        lambda: high_pass("cells of 12", device),
    ]
    if dtype != torch.float32:
        made += [lambda case=case: convolve_pixels(case, device, dtype, channels) for case in ("skip", "bytes")]
    for case in COUNTS:
        made += [
            lambda case=case: select_patches(case, device, torch.float32),
            lambda case=case: filter_and_select(case, device),
            lambda case=case: gather_patches(case, device, dtype, channels),
            lambda case=case: paste_patches(case, device, dtype),
        ]
    return made
