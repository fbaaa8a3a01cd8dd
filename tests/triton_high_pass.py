"""The kernel of ``high_pass`` against its definition, bit for bit. test_triton_kernels.py runs this file."""

import pytest
import torch
from triton_kernels import DEVICE, byte_images
from triton_kernels import poisoned_outputs as poisoned_outputs

from mga_kernels import ops
from mga_kernels.ops import high_pass
from mga_kernels.ops.high_pass import reference
from mga_kernels.ops.high_pass import triton as kernel


@pytest.mark.parametrize(
    ("shape", "side"),
    [((2, 21, 30), 8), ((1, 5, 3), 1), ((1, 1, 1), 4), ((1, 9, 1), 2), ((1, 3, 70), 64), ((1, 13, 25), 48)],
)
def test_equals_the_definition(shape, side, generator):
    for name, picture in byte_images((*shape, 3), generator).items():
        got = high_pass(picture, side)
        assert ops.last_backend("high_pass") == "triton"
        assert torch.equal(got.cpu(), reference.high_pass(picture.cpu(), side)), name


def test_cells_that_are_wider_than_a_block(generator, monkeypatch):
    monkeypatch.setattr(kernel, "MOST", 16)
    picture = torch.randint(256, (1, 9, 90, 3), generator=generator, dtype=torch.uint8)
    assert torch.equal(high_pass(picture.to(DEVICE), 40).cpu(), reference.high_pass(picture, 40))


def test_sums_that_no_32_bits_hold():
    y, x = torch.meshgrid(torch.arange(60), torch.arange(500), indexing="ij")
    picture = (255 * (x % 2)).to(torch.uint8)[None, :, :, None].repeat(1, 1, 1, 3)
    squares = reference.high_pass(picture, 512).double().square() * 9180.0**2 * y.numel()
    assert float(squares) > 2**32
    assert torch.equal(high_pass(picture.to(DEVICE), 512).cpu(), reference.high_pass(picture, 512))


def test_without_pixels_there_are_no_cells():
    assert high_pass(torch.empty(1, 0, 5, 3, dtype=torch.uint8, device=DEVICE), 4).shape == (1, 0, 2)
