"""paste_shuffled_'s CUDA kernel in the emulation (see cuda_emulated.py)."""

import ctypes

import pytest
import torch
from cuda_emulated import launch, reference

from mga_kernels import ops

IMAGES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32]
REALS = [torch.float16, torch.bfloat16, torch.float32]


def check(emulation, image, patches, indices, scale, gain=1.0):
    """Bit for bit what the definition gives, and nothing else is touched."""
    side = patches.shape[2]
    wanted = reference("paste_shuffled_", image.clone(), patches, indices, scale, gain)
    before = image.clone()
    cells = image.shape[2] // (side * scale), image.shape[3] // (side * scale)
    sizes = (*image.shape[:2], *cells, indices.shape[1], scale, side)
    types = IMAGES.index(image.dtype), REALS.index(patches.dtype)
    arguments = image, patches, indices, sizes, image.stride(), patches.stride(), types, ctypes.c_float(gain)
    launch(emulation, "paste_shuffled", *arguments)
    torch.testing.assert_close(image, wanted, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(image, before)


def values(shape, generator):
    """Beyond both ends of 0 to 1."""
    return 1.5 * torch.rand(shape, generator=generator) - 0.25


def inputs(generator, image_type, patch_type, *, batch=2, channels=3, rows=3, columns=4, scale=4, side=4, count=5):
    shape = batch, channels, rows * side * scale, columns * side * scale
    image = (100 * torch.rand(shape, generator=generator)).to(image_type)
    patches = values((batch * count, channels * scale**2, side, side), generator).to(patch_type)
    return image, patches, ops.select_patches(torch.zeros(batch, rows, columns), count, "random", 1)


@pytest.mark.parametrize("image_type", IMAGES)
@pytest.mark.parametrize("patch_type", REALS)
@pytest.mark.parametrize("image_layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("patch_layout", [torch.contiguous_format, torch.channels_last])
def test_types_and_layouts(emulation, image_type, patch_type, image_layout, patch_layout, generator):
    image, patches, indices = inputs(generator, image_type, patch_type)
    image, patches = image.contiguous(memory_format=image_layout), patches.contiguous(memory_format=patch_layout)
    check(emulation, image, patches, indices, 4)


@pytest.mark.parametrize("image_type", [torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "sizes",
    [
        {"scale": 1, "side": 8},
        {"scale": 2, "side": 2},
        {"scale": 3, "side": 4},
        {"scale": 4, "side": 1},
        {"scale": 2, "side": 3, "channels": 1},
        {"scale": 2, "side": 4, "channels": 5, "batch": 1, "count": 12},
        {"scale": 4, "side": 16, "rows": 1, "columns": 2, "count": 1},  # too large for shared memory
    ],
)
def test_sizes(emulation, thread_order, image_type, layout, sizes, generator):
    image, patches, indices = inputs(generator, image_type, torch.float32, **sizes)
    check(emulation, image.contiguous(memory_format=layout), patches, indices, sizes["scale"])


def test_several_patches_a_block(emulation, emulated_gpu, thread_order, generator):
    emulated_gpu(multiprocessors=1)
    image, patches, indices = inputs(generator, torch.uint8, torch.float16, rows=5, columns=5, count=25)
    check(emulation, image, patches, indices, 4)


@pytest.mark.parametrize("image_type", IMAGES)
def test_any_strides(emulation, image_type, generator):
    image, patches, indices = inputs(generator, image_type, torch.bfloat16, scale=2)
    between = torch.full((2, 3, 24, 65), 7, dtype=image_type)
    view = between[..., :64:2].copy_(image)
    wide = torch.full((20, 12, 4, 9), torch.nan, dtype=torch.bfloat16)
    part = wide[::2, ..., 1:5].copy_(patches)
    check(emulation, view, part, indices, 2)
    assert (between[..., 1::2] == 7).all()


@pytest.mark.parametrize("image_type", IMAGES)
def test_gain_rounding_and_nan(emulation, image_type, generator):
    image, patches, indices = inputs(generator, image_type, torch.float32)
    patches = (patches * 255 * 2).round() / 2  # halves, which round to even
    patches[0, 0, 0] = torch.nan
    patches[1, 3] = torch.inf
    check(emulation, image, patches, indices, 4, 1 / 255)


def test_cells_outside_the_grid_are_left_out(emulation, generator):
    image, patches, indices = inputs(generator, torch.uint8, torch.float16)
    kept = indices.clone()
    kept[:, 1:] = -1
    kept[1, 2] = 12
    before = image.clone()
    sizes = (*image.shape[:2], 3, 4, 5, 4, 4)
    arguments = image, patches, kept, sizes, image.stride(), patches.stride(), (0, 0), ctypes.c_float(1)
    launch(emulation, "paste_shuffled", *arguments)
    wanted = reference("paste_shuffled_", before, patches[::5], indices[:, :1], 4, 1.0)
    assert torch.equal(image, wanted)
