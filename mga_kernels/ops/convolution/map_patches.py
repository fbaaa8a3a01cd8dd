"""Patches side by side in float maps: ``map_gather_``, ``map_grid_statistics``, ``map_grid_scale_``.

As in pair planes (``patches``), patches of h x w pixels stand in a grid, ``across`` in a row, with a row and a column
between them, which these operators leave as they are: patch i begins at row i // across * (h + 1) and column
i % across * (w + 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...alone.layout import BEFORE, GROUP
from ...errors import InputError
from ..grid import check_count, check_divides, check_indices, check_inside, describe
from .layout import leaky
from .map_layout import check_map
from .on_cpu import on_cpu


def map_gather_(
    out: Tensor,
    x: Tensor,
    groups: int,
    height: int,
    width: int,
    indices: Tensor,
    patch_size: int,
    halo: int,
    across: int,
    repeated: int = -1,
) -> Tensor:
    """Cut cells out of the image in ``x`` into a grid of patches in ``out``, and return it.

    ``out`` and ``x`` are maps with at least ``groups`` groups; the image is ``height`` x ``width``, multiples of p =
    ``patch_size``; ``indices`` int32 (1, K); h = ``halo``. With q = p + 2h, and (t, l) the pixel of ``out`` where patch
    i begins,

        out[t + y, g, l + x] = x[row * p - h + y, g, column * p - h + x],  0 <= y, x < q
        with indices[0, i] = row * (width / p) + column

    Beyond the image are zeros, and in groups from ``repeated`` on, where that is not -1, the nearest pixels; where the
    last row has no patch, there are zeros. Raises InputError for an index outside the grid, for sizes that p does not
    divide, and for maps that are too small.
    """
    op = "map_gather_"
    check_divides(op, "image", height, width, patch_size)
    check_indices(op, indices, 1)
    check_count(op, "halo", halo, 0)
    check_count(op, "across", across, 1)
    side = patch_size + 2 * halo
    check_map(op, "x", x, groups, height, width)
    check_map(op, "out", out, groups, *_size_of(indices.shape[1], side, side, across))
    return GATHER(out, x, groups, height, width, indices.contiguous(), patch_size, halo, across, int(repeated))


def map_grid_statistics(x: Tensor, groups: int, count: int, height: int, width: int, across: int) -> Tensor:
    """Sums over each patch of a grid: map ``x`` -> float32 (2, count, 8 * groups).

        statistics[0, i, c] = sum of x[c, y, x] over patch i, statistics[1, i, c] of its squares

    Pixels are summed in float32, row by row. Patches are ``height`` x ``width``. Raises InputError for a map that is
    too small.
    """
    op = "map_grid_statistics"
    check_count(op, "count", count, 1)
    check_map(op, "x", x, groups, *_size_of(count, height, width, across))
    return STATISTICS(x, groups, count, height, width, across)


def map_grid_scale_(
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
    """Patches with factors and offsets of their own; writes into map ``out``, which may be ``x`` or ``skip``, and
    returns it.

    ``factors`` and ``offsets`` float32 (count, C), C a multiple of 8. For channel c of patch i

        out[c] = leaky(factors[i, c] * x[c] + offsets[i, c] + skip[c]),  leaky(v) = v * slope where v < 0

    in float32, the product and both sums rounded. Raises InputError for other shapes, and for maps that are too small.
    """
    op = "map_grid_scale_"
    for name, values in (("factors", factors), ("offsets", offsets)):
        alike = values.dtype == torch.float32 and values.ndim == 2 and values.shape == factors.shape
        if not alike or values.shape[1] % GROUP:
            raise InputError(f"{op}: {name} must be float32 (count, a multiple of 8), got {describe(values)}")
    check_count(op, "count", len(factors), 1)
    size = _size_of(len(factors), height, width, across)
    for name, data in (("out", out), ("x", x), *((("skip", skip),) if skip is not None else ())):
        check_map(op, name, data, factors.shape[1] // GROUP, *size)
    return SCALE(out, x, skip, factors.contiguous(), offsets.contiguous(), height, width, across, float(slope))


def _size_of(count: int, height: int, width: int, across: int) -> tuple[int, int]:
    """Pixels of a grid of so many patches."""
    return -(-count // across) * (height + 1) - 1, across * (width + 1) - 1


def _patches(data: Tensor, groups: int, count: int, size: tuple[int, int], across: int) -> list[Tensor]:
    """Views (h, groups, w, 8) of the patches."""
    (height, width), image = size, data[:, :groups, BEFORE:]
    places = [(i // across * (height + 1), i % across * (width + 1)) for i in range(count)]
    return [image[top : top + height, :, left : left + width] for top, left in places]


def _gather(
    out: Tensor,
    x: Tensor,
    groups: int,
    height: int,
    width: int,
    indices: Tensor,
    patch_size: int,
    halo: int,
    across: int,
    repeated: int,
) -> Tensor:
    side, columns = patch_size + 2 * halo, width // patch_size
    check_inside("map_gather_", indices, height // patch_size, columns)
    image, place = x[:, :groups, BEFORE:], torch.arange(-halo, patch_size + halo)
    places = -(-indices.shape[1] // across) * across
    patches = _patches(out, groups, places, (side, side), across)
    for patch in patches[indices.shape[1] :]:
        patch.zero_()
    for index, patch in zip(indices[0].tolist(), patches, strict=False):
        y, left = index // columns * patch_size + place, index % columns * patch_size + place
        nearest = image[y.clamp(0, height - 1)][:, :, left.clamp(0, width - 1)]
        inside = ((y >= 0) & (y < height))[:, None] & (left >= 0) & (left < width)
        patch.copy_(torch.where(inside[:, None, :, None], nearest, 0))
        if repeated >= 0:
            patch[:, repeated:].copy_(nearest[:, repeated:])
    return out


def _statistics(x: Tensor, groups: int, count: int, height: int, width: int, across: int) -> Tensor:
    patches = torch.stack(_patches(x, groups, count, (height, width), across))
    sums = torch.zeros(2, count, groups, GROUP)
    for row in patches.unbind(dim=1):
        for pixels in row.unbind(dim=2):
            sums[0] += pixels
            sums[1] += pixels * pixels
    return sums.flatten(2)


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
    count, channels = factors.shape
    here = channels // GROUP, count, (height, width), across
    factors, offsets = (values.view(count, 1, -1, 1, GROUP) for values in (factors, offsets))
    values = torch.stack(_patches(x, *here)) * factors + offsets
    if skip is not None:
        values = values + torch.stack(_patches(skip, *here))
    for patch, result in zip(_patches(out, *here), leaky(values, slope), strict=True):
        patch.copy_(result)
    return out


def _fake_statistics(x: Tensor, groups: int, count: int, height: int, width: int, across: int) -> Tensor:
    return x.new_empty((2, count, GROUP * groups))


GATHER = on_cpu("map_gather_", torch.float32, _gather)
STATISTICS = on_cpu("map_grid_statistics", torch.float32, _statistics, _fake_statistics)
SCALE = on_cpu("map_grid_scale_", torch.float32, _scale)
