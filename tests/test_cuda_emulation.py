"""Selection, gather and paste as CUDA kernels in the emulation (see cuda_emulated.py)."""

import ctypes
import itertools

import pytest
import torch
from cuda_emulated import launch, reference

from mga_kernels import ops

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ORDERS = ["largest", "smallest", "random"]


SMALLEST, LARGE, LONG = (1, 1, 1), (1, 33, 64), (1, 1, 513)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [*(((2, 5, 7), dtype) for dtype in DTYPES), (SMALLEST, DTYPES[3]), (LARGE, DTYPES[0]), (LONG, DTYPES[2])],
)
def test_select_patches(emulation, thread_order, shape, dtype, generator):
    distinct = torch.randn(shape, generator=generator)
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0])
    cells = shape[1] * shape[2]
    masks = distinct, distinct.round(), special[torch.randint(6, shape, generator=generator)]
    counts = itertools.cycle((max(1, cells // 3), cells, 1, max(1, cells - 1)))
    for mask, (number, order) in itertools.product((mask.to(dtype) for mask in masks), enumerate(ORDERS)):
        k = next(counts)
        indices = torch.full((shape[0], k), -7, dtype=torch.int32)
        sizes = [ctypes.c_int64(size) for size in (shape[0], cells, k)]
        launch(emulation, "select_patches", mask, DTYPES.index(dtype), indices, *sizes, number, 3)
        assert torch.equal(indices, reference("select_patches", mask, k, order, 3)), (order, k)


@pytest.mark.parametrize("dtype", [torch.uint8, *DTYPES])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "transposed"])
@pytest.mark.parametrize(("channels", "halo"), [(5, 0), (6, 1), (8, 3), (16, 1)])
def test_gather_patches(emulation, dtype, layout, channels, halo, generator):
    """Channels of 1 to 16 bytes' alignment, so that every width of access is met."""
    feature = (100 * torch.rand(2, channels, 12, 18, generator=generator)).to(dtype)
    if layout == "channels-last":
        feature = feature.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        feature = feature.transpose(2, 3).contiguous().transpose(2, 3)
    indices = ops.select_patches(torch.zeros(2, 6, 9), 20, "random", halo)
    wanted = reference("gather_patches", feature, indices, 2, halo)
    patches = torch.empty_like(wanted).fill_(77)
    shape = (2, channels, 12, 18, 20, 2, halo)
    last = int(layout == "channels-last")
    launch(emulation, "gather_patches", feature, indices, patches, shape, feature.stride(), last, dtype.itemsize)
    assert torch.equal(patches, wanted)
    outside = torch.tensor([[-1] * 20, [54] * 20], dtype=torch.int32)
    launch(emulation, "gather_patches", feature, outside, patches, shape, feature.stride(), last, dtype.itemsize)
    assert (patches == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, *DTYPES])
@pytest.mark.parametrize("image_layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("patch_layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [3, 4])
def test_paste_patches(emulation, dtype, image_layout, patch_layout, channels, generator):
    image = (
        (100 * torch.rand(2, channels, 12, 20, generator=generator)).to(dtype).contiguous(memory_format=image_layout)
    )
    patches = (
        (100 * torch.rand(14, channels, 4, 4, generator=generator)).to(dtype).contiguous(memory_format=patch_layout)
    )
    indices = ops.select_patches(torch.zeros(2, 3, 5), 7, "random", 1)
    wanted = reference("paste_patches_", image.clone(), patches, indices)
    before = image.clone()
    strides = image.stride(), patches.stride()
    shape = (2, channels, 3, 5, 7, 4)
    outside = torch.tensor([[-1] * 7, [15] * 7], dtype=torch.int32)
    launch(emulation, "paste_patches", image, patches, outside, shape, *strides, dtype.itemsize)
    assert torch.equal(image, before)
    launch(emulation, "paste_patches", image, patches, indices, shape, *strides, dtype.itemsize)
    assert torch.equal(image, wanted)
    assert not torch.equal(image, before)


@pytest.mark.parametrize("layout", ["start", "width"])
def test_copies_of_what_is_not_aligned(emulation, layout, generator):
    """A part of a tensor begins, or continues, where no 16-byte access may."""
    wide = torch.randn(1, 8, 12, 40, generator=generator).to(memory_format=torch.channels_last)
    feature = wide[:, 1:5] if layout == "start" else wide[:, :5]
    indices = torch.tensor([[0, 7, 29]], dtype=torch.int32)
    wanted = reference("gather_patches", feature, indices, 4, 1)
    patches = torch.empty_like(wanted).fill_(77)
    shape = (1, feature.shape[1], 12, 40, 3, 4, 1)
    launch(emulation, "gather_patches", feature, indices, patches, shape, feature.stride(), 1, 4)
    assert torch.equal(patches, wanted)
    image = wide[..., 1:37] if layout == "start" else wide.contiguous()[..., :36]
    patches = torch.randn(3, 8, 4, 4, generator=generator)
    indices = torch.tensor([[26, 4, 9]], dtype=torch.int32)
    wanted = reference("paste_patches_", image.clone(), patches, indices)
    launch(emulation, "paste_patches", image, patches, indices, (1, 8, 3, 9, 3, 4), image.stride(), patches.stride(), 4)
    assert torch.equal(image, wanted)


def test_large_masks_are_read_again_instead_of_held(emulation, generator):
    """More cells than the registers of a block hold, with many ties."""
    mask = (torch.randn(1, 190, 180, generator=generator) * 50).round() / 50
    for number, order in enumerate(ORDERS):
        indices = torch.full((1, 1000), -7, dtype=torch.int32)
        sizes = [ctypes.c_int64(size) for size in (1, 190 * 180, 1000)]
        launch(emulation, "select_patches", mask, DTYPES.index(mask.dtype), indices, *sizes, number, 3)
        assert torch.equal(indices, reference("select_patches", mask, 1000, order, 3)), order
