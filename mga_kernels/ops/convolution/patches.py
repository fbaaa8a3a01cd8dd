"""Patches side by side in pair planes: ``pair_gather_``, ``pair_grid_statistics``, ``pair_grid_scale_``.

Patches of h x w pixels stand in a grid, ``across`` in a row, with a row and a column of zeros between them: patch i
begins at row i // across * (h + 1) and column i % across * (w + 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InputError
from ..grid import check_count, check_divides, check_indices, check_inside, describe
from .layout import VECTOR, channels_of, check_planes, leaky, multiply_add, pairs_of, pixels, to_bfloat16
from .on_cpu import on_cpu


def pair_gather_(
    out: Tensor,
    x: Tensor,
    pairs: int,
    height: int,
    width: int,
    indices: Tensor,
    patch_size: int,
    halo: int,
    across: int,
) -> Tensor:
    """Cut cells out of the image in ``x`` into a grid of patches in ``out``, and return it.

    ``out`` and ``x`` are planes of at least ``pairs`` pairs; the image is ``height`` x ``width``, multiples of p =
    ``patch_size``; ``indices`` int32 (1, K); h = ``halo`` 0 or 1. With q = p + 2h, and (t, l) the pixel of ``out``
    where patch i begins,

        out[pair, t + y, l + x] = x[pair, row * p - h + y, column * p - h + x],  0 <= y, x < q
        with indices[0, i] = row * (width / p) + column

    The border of ``x`` is what its planes hold there: zeros, or what was written. Raises InputError for an index
    outside the grid, for sizes that p does not divide, and where ``out`` is too small.
    """
    op = "pair_gather_"
    check_planes(op, "out", out)
    check_planes(op, "x", x)
    check_divides(op, "image", height, width, patch_size)
    check_indices(op, indices, 1)
    if halo not in (0, 1):
        raise InputError(f"{op}: the border of the planes is enough for a halo of 0 or 1, not {halo}")
    check_count(op, "across", across, 1)
    return GATHER(out, x, pairs, height, width, indices.contiguous(), patch_size, halo, across)


def pair_grid_statistics(x: Tensor, pairs: int, count: int, height: int, width: int, across: int) -> Tensor:
    """Sums over each patch of a grid: planes ``x`` -> float32 (2, count, 2 * pairs).

        statistics[0, i, c] = sum of x[c, y, x] over patch i, statistics[1, i, c] of its squares

    Columns are summed in float32 from above to below, then from left to right. Patches are ``height`` x ``width``.
    """
    check_planes("pair_grid_statistics", "x", x)
    return STATISTICS(x, pairs, count, height, width, across)


def pair_grid_scale_(
    out: Tensor,
    x: Tensor,
    skip: Tensor | None,
    factors: Tensor,
    offsets: Tensor,
    height: int,
    width: int,
    across: int,
    slope: float = 1.0,
) -> Tensor:
    """Patches with factors and offsets of their own; writes into planes ``out``, which may be ``x``, and returns them.

    ``factors`` and ``offsets`` float32 (count, C), C even. For channel c of patch i

        out[c] = leaky(factors[i, c] * x[c] + offsets[i, c] + skip[c]),  leaky(v) = v * slope where v < 0

    with one rounding of product and offset, one of the sum and one to bfloat16. Between the patches zeros are written;
    what is written in places of the last row that have no patch has no meaning.
    """
    op = "pair_grid_scale_"
    for name, planes in (("out", out), ("x", x), *((("skip", skip),) if skip is not None else ())):
        check_planes(op, name, planes)
    for name, values in (("factors", factors), ("offsets", offsets)):
        if values.dtype != torch.float32 or values.ndim != 2 or values.shape != factors.shape or values.shape[1] % 2:
            raise InputError(f"{op}: {name} must be float32 (count, even channels), got {describe(values)}")
    return SCALE(out, x, skip, factors.contiguous(), offsets.contiguous(), height, width, across, float(slope))


def _patches(planes: Tensor, pairs: int, count: int, size: tuple[int, int], across: int) -> Iterator[Tensor]:
    """Views (pairs, h, w, 2) of the patches."""
    height, width = size
    image = planes[:pairs, 1:, VECTOR:]
    for i in range(count):
        top, left = i // across * (height + 1), i % across * (width + 1)
        yield image[:, top : top + height, left : left + width]


def _gather(
    out: Tensor,
    x: Tensor,
    pairs: int,
    height: int,
    width: int,
    indices: Tensor,
    patch_size: int,
    halo: int,
    across: int,
) -> Tensor:
    side = patch_size + 2 * halo
    columns = width // patch_size
    check_inside("pair_gather_", indices, height // patch_size, columns)
    patches = _patches(out, pairs, indices.shape[1], (side, side), across)
    for index, patch in zip(indices[0].tolist(), patches, strict=True):
        top, left = index // columns * patch_size - halo, index % columns * patch_size - halo
        patch.copy_(x[:pairs, 1 + top :, VECTOR + left :][:, :side, :side])
    return out


def _statistics(x: Tensor, pairs: int, count: int, height: int, width: int, across: int) -> Tensor:
    result = torch.empty(2, count, 2 * pairs)
    for i, patch in enumerate(_patches(x, pairs, count, (height, width), across)):
        values = channels_of(patch).float()
        columns = torch.zeros(2, 2 * pairs, width)
        for row in values.unbind(dim=1):
            columns = torch.stack([columns[0] + row, multiply_add(row, row, columns[1])])
        total = torch.zeros(2, 2 * pairs)
        for column in columns.unbind(dim=2):
            total = total + column
        result[:, i] = total
    return result


def _scale(
    out: Tensor,
    x: Tensor,
    skip: Tensor | None,
    factors: Tensor,
    offsets: Tensor,
    height: int,
    width: int,
    across: int,
    slope: float,
) -> Tensor:
    (count, channels), size = factors.shape, (height, width)
    pairs, down = channels // 2, -(-count // across)
    source = pixels(x[:pairs], down * (height + 1) - 1, across * (width + 1) - 1).clone()
    beside = None if skip is None else pixels(skip[:pairs], *source.shape[1:3]).clone()
    whole = source.shape[2] + -source.shape[2] % VECTOR  # what is left of the last vector is written as zeros
    for row in range(down):  # the rows of pixels between rows of patches are left alone
        out[:pairs, 1 + row * (height + 1) :, VECTOR : VECTOR + whole][:, :height] = 0
    for i, patch in enumerate(_patches(out, pairs, count, size, across)):
        top, left = i // across * (height + 1), i % across * (width + 1)
        inside = (slice(None), slice(top, top + height), slice(left, left + width))
        values = multiply_add(channels_of(source[inside]).float(), factors[i, :, None, None], offsets[i, :, None, None])
        if beside is not None:
            values = values + channels_of(beside[inside]).float()
        patch.copy_(pairs_of(to_bfloat16(leaky(values, slope))))
    return out


def _fake_statistics(x: Tensor, pairs: int, count: int, height: int, width: int, across: int) -> Tensor:
    return x.new_empty((2, count, 2 * pairs), dtype=torch.float32)


GATHER = on_cpu("pair_gather_", torch.bfloat16, _gather)
STATISTICS = on_cpu("pair_grid_statistics", torch.bfloat16, _statistics, _fake_statistics)
SCALE = on_cpu("pair_grid_scale_", torch.bfloat16, _scale)
