"""The operators that fuse several steps, as workloads on the tensors of ``workloads``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import workloads
from workloads import PATCH_SIZE, SCALE, Workload

from mga_kernels import ops


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _random(device: str, dtype: torch.dtype, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=_generator()).mul(scale).to(device, dtype)


def _equal_to_reference(op: str, call: Callable[[], torch.Tensor], *arguments: object) -> Callable[[], None]:
    return workloads._check_equal(call, lambda: workloads._reference(op)(*arguments))


def filter_and_select(case: str, device: str) -> Workload:
    probability = workloads._mask(device).sigmoid()
    weight, bias = _random(device, torch.float32, 25, 1, 1, 1), _random(device, torch.float32, 25)
    k = workloads.COUNTS[case]
    arguments = probability, probability[:, None], weight, bias, k

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        return ops.filter_and_select(*arguments)

    def check() -> None:
        mask, indices = call()
        exact = workloads._reference("dynamic_filter")(*(t.double() for t in arguments[:4]))
        torch.testing.assert_close(mask.double(), exact, atol=1e-5, rtol=1e-5)
        if not torch.equal(indices, workloads._reference("select_patches")(mask, k, "largest", 0)):
            raise AssertionError("the indices are not those of the mask")

    moved = 2 * probability.nbytes + weight.nbytes + bias.nbytes + 4 * k
    return Workload("filter_and_select", case, call, check, moved, 2 * 50 * probability.numel())


def paste_shuffled(case: str, device: str, dtype: torch.dtype) -> Workload:
    """From the last convolution's channels-last output into a uint8 image (H, W, 3)."""
    k = workloads.COUNTS[case]
    size = SCALE * workloads.HEIGHT, SCALE * workloads.WIDTH
    image = torch.zeros(1, *size, 3, device=device, dtype=torch.uint8).permute(0, 3, 1, 2)
    patches = _random(device, dtype, k, 3 * SCALE**2, PATCH_SIZE, PATCH_SIZE)
    patches = patches.contiguous(memory_format=torch.channels_last)
    indices = ops.select_patches(workloads._mask(device), k)

    def call() -> torch.Tensor:
        return ops.paste_shuffled_(image, patches, indices, SCALE)

    def check() -> None:
        expected = workloads._reference("paste_shuffled_")(image.clone(), patches, indices, SCALE, 1.0)
        if not torch.equal(ops.paste_shuffled_(image.clone(), patches, indices, SCALE), expected):
            raise AssertionError("the result is not that of the reference")

    return Workload("paste_shuffled_", case, call, check, patches.nbytes + patches.numel() + indices.nbytes)


def image_to_input(device: str, dtype: torch.dtype) -> Workload:
    height, width = workloads.HEIGHT, workloads.WIDTH
    image = torch.randint(256, (1, height - PATCH_SIZE, width, 3), generator=_generator(), dtype=torch.uint8).to(device)

    def call() -> torch.Tensor:
        return ops.image_to_input(image, height, width, 1.0, dtype)

    check = _equal_to_reference("image_to_input", call, image, height, width, 1.0, dtype)
    return Workload("image_to_input", "padded", call, check, image.nbytes + 3 * height * width * dtype.itemsize)


def output_to_image(device: str, dtype: torch.dtype) -> Workload:
    height, width = SCALE * workloads.HEIGHT, SCALE * workloads.WIDTH
    output = _random(device, dtype, 1, 3, height, width).contiguous(memory_format=torch.channels_last)
    cropped = height - SCALE * PATCH_SIZE

    def call() -> torch.Tensor:
        return ops.output_to_image(output, cropped, width)

    check = _equal_to_reference("output_to_image", call, output, cropped, width, 1.0)
    moved = 3 * cropped * width * (dtype.itemsize + 1)
    return Workload("output_to_image", "cropped", call, check, moved)


def everything(device: str, dtype: torch.dtype, channels: int) -> list[Callable[[], Workload]]:
    """Makers of every workload in one dtype, so that only one holds its tensors at a time."""
    made: list[Callable[[], Workload]] = [
        lambda: workloads.mask_head("softmax-then-pool", device, dtype, channels),
        lambda: image_to_input(device, dtype),
        lambda: output_to_image(device, dtype),
        lambda: workloads.high_pass("cells of 12", device),
    ]
    if dtype != torch.float32:
        made += [
            lambda case=case: workloads.convolve_pixels(case, device, dtype, channels) for case in ("skip", "bytes")
        ]
    for case in workloads.COUNTS:
        made += [
            lambda case=case: workloads.select_patches(case, device, torch.float32),
            lambda case=case: filter_and_select(case, device),
            lambda case=case: workloads.gather_patches(case, device, dtype, channels),
            lambda case=case: workloads.paste_patches(case, device, dtype),
            lambda case=case: paste_shuffled(case, device, dtype),
        ]
    return made
