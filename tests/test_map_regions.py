"""Layers over float maps that are computed in regions only: lists of tiles, and of those that become zeros."""

from dataclasses import replace

import pytest
import torch
from map_layers import Case, map_of, poisoned

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops.convolution.map_layout import read
from mga_kernels.records import FrameRecord, MapRecord

HEIGHT, WIDTH = 50, 131


def tiles_of(chosen):
    return chosen.flatten().nonzero().flatten().int()


def call(case, record, tiles, out, scale=1, band=0):
    frame = FrameRecord(HEIGHT, WIDTH, band=band)
    maps = [MapRecord(), MapRecord(scale=scale)]
    image = torch.randn(case.inputs, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
    ops.convolve_maps_([map_of(image), out], maps, [], [case.packed], [case.epilogue], [record], tiles, frame)


@pytest.mark.parametrize(("size", "tile", "shuffle"), [(3, 4, 1), (3, 6, 1), (1, 0, 1), (3, 4, 2), (0, 0, 1)])
@pytest.mark.parametrize("band", [0, 12])
def test_tiles_become_zeros_and_others_stay(size, tile, shuffle, band):
    torch.manual_seed(3)
    case = Case(16 * shuffle**2, 16 * shuffle**2, size, tile, slope=0.1, settings={"shuffle": shuffle})
    side = tile or 4
    down, across = -(-HEIGHT // side), -(-WIDTH // side)
    what = torch.randint(3, (down, across))  # 0: stays, 1: is computed, 2: becomes zeros
    record = case.record(tiles=0, zeros=1)
    found, whole = (poisoned(16, HEIGHT * shuffle, WIDTH * shuffle, 7.0) for _ in range(2))
    call(case, record, [tiles_of(what == 1), tiles_of(what == 2)], found, shuffle, band)
    call(case, replace(record, tiles=-1, zeros=-1), [], whole, shuffle, band)
    each = side * shuffle
    what = what.repeat_interleave(each, 0).repeat_interleave(each, 1)[: HEIGHT * shuffle, : WIDTH * shuffle]
    found, whole = (read(data, HEIGHT * shuffle, WIDTH * shuffle, 0, 16) for data in (found, whole))
    assert torch.equal(found[:, what == 1], whole[:, what == 1])
    assert (found[:, what == 0] == 7).all()
    assert (found[:, what == 2] == 0).all()


def test_zeros_of_a_part_leave_the_channels_beside_it():
    case = Case(8, 8, 3, 4)
    out = poisoned(24, HEIGHT, WIDTH, 7.0)
    zeros = torch.arange(13 * 33, dtype=torch.int32)
    call(case, case.record(tiles=0, zeros=1, out_channel=8), [zeros[:0], zeros], out)
    values = read(out, HEIGHT, WIDTH, 0, 24)
    assert not values[8:16].any()
    assert (values[:8] == 7).all()
    assert (values[16:] == 7).all()


@pytest.mark.parametrize(("tiles", "zeros"), [([1, 2], [2, 3]), (None, [2]), ([1], [430])])
def test_zeros_must_be_tiles_that_are_not_computed(tiles, zeros):
    case = Case(8, 8, 3, 4)
    lists = [torch.tensor(numbers or [], dtype=torch.int32) for numbers in (tiles, zeros)]
    with pytest.raises(InputError, match=r"list of zeros|outside of"):
        call(case, case.record(tiles=-1 if tiles is None else 0, zeros=1), lists, poisoned(8, HEIGHT, WIDTH))
