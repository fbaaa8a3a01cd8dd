"""Where a picture has detail: ``high_pass``."""

import pytest
import torch
from operators import run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels.errors import InputError
from mga_kernels.ops import high_pass
from mga_kernels.ops.high_pass import reference


def expected(picture, side):
    """Cell by cell and pixel by pixel, in Python."""
    batch, height, width, _ = picture.shape
    result = torch.zeros(batch, -(-height // side), -(-width // side))
    for b in range(batch):
        luma = [[(77 * r + 150 * g + 29 * c + 32) // 64 for r, g, c in row] for row in picture[b].tolist()]
        for top in range(0, height, side):
            for left in range(0, width, side):
                bottom, right = min(top + side, height) - 1, min(left + side, width) - 1
                squares = []
                for y in range(top, bottom + 1):
                    for x in range(left, right + 1):
                        around = [
                            luma[min(max(y + dy, top), bottom)][min(max(x + dx, left), right)]
                            for dy in (-1, 0, 1)
                            for dx in (-1, 0, 1)
                        ]
                        squares.append((luma[y][x] - sum(around) / 9) ** 2)
                result[b, top // side, left // side] = (sum(squares) / len(squares)) ** 0.5 / 1020
    return result


@pytest.mark.parametrize(
    ("size", "side"),
    [((1, 16, 24), 8), ((2, 21, 30), 8), ((1, 5, 3), 1), ((1, 1, 1), 4), ((1, 9, 1), 2), ((1, 3, 70), 64)],
)
def test_equals_the_definition(backend, generator, size, side):
    picture = torch.randint(256, (*size, 3), generator=generator, dtype=torch.uint8)
    got = run("high_pass", backend, picture, side).cpu()
    torch.testing.assert_close(got, expected(picture, side), rtol=1e-6, atol=1e-7)
    assert torch.equal(got, reference.high_pass(picture, side))


def test_the_strongest_pictures_by_the_definition(backend):
    """Black and white in turns: sums of squares that no 32 bits hold, in cells as large as there are."""
    y, x = torch.meshgrid(torch.arange(600), torch.arange(700), indexing="ij")
    picture = (255 * ((y + x) % 2)).to(torch.uint8)[None, :, :, None].expand(1, 600, 700, 3).contiguous()
    got = run("high_pass", backend, picture, 4096).cpu()
    assert float(got) == pytest.approx(4 / 9, rel=0.01)
    lines = (255 * (x % 2)).to(torch.uint8)[None, :, :, None].repeat(1, 1, 1, 3)
    assert float(run("high_pass", backend, lines, 700).cpu()) == pytest.approx(2 / 3, rel=0.01)


def test_a_cell_depends_on_itself_alone_by_the_definition(backend, generator):
    picture = torch.randint(256, (1, 24, 24, 3), generator=generator, dtype=torch.uint8)
    changed = picture.clone()
    changed[:, 8:16, 8:16] = 255 - changed[:, 8:16, 8:16] // 3
    one, other = (run("high_pass", backend, each, 8).cpu()[0] for each in (picture, changed))
    assert one[1, 1] != other[1, 1]
    one[1, 1] = other[1, 1]
    assert torch.equal(one, other)


def test_flat_cells_are_zero_by_the_definition(backend):
    picture = torch.tensor([250, 3, 77], dtype=torch.uint8).repeat(1, 19, 33, 1)
    assert torch.equal(run("high_pass", backend, picture, 8).cpu(), torch.zeros(1, 3, 5))


def test_parts_of_a_larger_picture_by_the_definition(backend, generator):
    large = torch.randint(256, (2, 40, 60, 3), generator=generator, dtype=torch.uint8)
    part = large[:, 3:30, 7:51]
    assert torch.equal(run("high_pass", backend, part, 6).cpu(), high_pass(part.contiguous(), 6))


def test_other_strides_are_for_the_reference(free_choice, generator):
    picture = torch.randint(256, (1, 3, 20, 30), generator=generator, dtype=torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(high_pass(picture, 8), high_pass(picture.contiguous(), 8))


def test_its_shape_is_known_before_it_runs():
    with FakeTensorMode():
        made = high_pass(torch.empty(2, 21, 30, 3, dtype=torch.uint8), 8)
    assert (made.shape, made.dtype) == ((2, 3, 4), torch.float32)


@pytest.mark.parametrize(
    ("picture", "side", "message"),
    [
        (torch.zeros(1, 4, 4, 3), 2, "picture must be a uint8 tensor"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), 2, "picture must be a uint8 tensor"),
        (torch.zeros(1, 4, 4, 4, dtype=torch.uint8), 2, "picture must be a uint8 tensor"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 0, "side"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 4097, "at most 4096"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 2.5, "side"),
    ],
)
def test_what_it_does_not_take(picture, side, message):
    with pytest.raises(InputError, match=message):
        high_pass(picture, side)
