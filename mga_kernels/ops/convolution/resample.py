"""Between smaller images and pair planes or float maps: ``pair_pool``, ``pair_interpolate_``, ``map_interpolate_``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...alone.layout import GROUP, groups_of
from ...errors import InputError
from ..grid import check_count, describe
from .layout import VECTOR, channels_of, check_planes, enlarge, pairs_of, pixels, positions, to_bfloat16
from .map_layout import check_map, write
from .on_cpu import on_cpu


def pair_pool(x: Tensor, x_pair: int, pairs: int, height: int, width: int, size: int, step: int) -> Tensor:
    """A strided convolution and a maximum: planes ``x`` -> float32 (2 * pairs, h, w).

    Of the image ``height`` x ``width`` in ``pairs`` pairs from ``x_pair`` on, which a 3x3 convolution with padding has
    made, every second pixel from (1, 1) on is what one of stride 2 without padding makes. With n = ``size``,

        kept[c, y, x] = x[c, 1 + 2y, 1 + 2x]
        pooled[c, y, x] = maximum of kept[c, step y + dy, step x + dx] over 0 <= dy, dx < n

    Raises InputError for an image that is too small for one result.
    """
    op = "pair_pool"
    check_planes(op, "x", x)
    for name, number in (("pairs", pairs), ("size", size), ("step", step)):
        check_count(op, name, number, 1)
    if min(height, width) < 3 or min((height - 1) // 2, (width - 1) // 2) < size:
        raise InputError(f"{op}: a {height}x{width} image is too small for a maximum of {size}x{size}")
    if x_pair < 0 or x_pair + pairs > len(x):
        raise InputError(f"{op}: x has {len(x)} pairs, not {pairs} from {x_pair} on")
    return POOL(x, x_pair, pairs, height, width, size, step)


def pair_interpolate_(out: Tensor, out_pair: int, x: Tensor, height: int, width: int) -> Tensor:
    """Enlarge float maps into planes: ``x`` float32 (C, h, w), C even -> pairs of ``out`` from ``out_pair`` on.

    Bilinear with align_corners=False: with u = max(0, (y + 0.5) h / height - 0.5), i = floor(u), and j, v for columns,

        t[c, y, j] = x[c, i, j] + (u - i) (x[c, i + 1, j] - x[c, i, j])
        out[c, y, x] = t[c, y, j] + (v - j) (t[c, y, j + 1] - t[c, y, j]),  where i + 1 and j + 1 stop at the edge

    in float32, the last line with one rounding of the product and the sum, rounded to bfloat16. Returns ``out``.
    """
    op = "pair_interpolate_"
    check_planes(op, "out", out)
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.ndim != 3 or x.shape[0] % 2 or not x.numel():
        raise InputError(f"{op}: x must be float32 (even channels, h, w), got {describe(x)}")
    check_count(op, "height", height, 1)
    check_count(op, "width", width, 1)
    if out_pair < 0 or out_pair + len(x) // 2 > len(out) or height > out.shape[1] - 2:
        raise InputError(f"{op}: out {describe(out)} is too small for {len(x)} channels of {height} rows")
    return INTERPOLATE(out, out_pair, x.contiguous(), height, width)


def map_interpolate_(out: Tensor, group: int, x: Tensor, height: int, width: int) -> Tensor:
    """Enlarge ``x`` float32 (C, h, w) into groups of map ``out`` from ``group`` on, ``height`` x ``width`` pixels.

    Channels from C up to a multiple of 8 are zeros. Bilinear with align_corners=False, as ``pair_interpolate_``, every
    product and every sum rounded to float32. Returns ``out``. Raises InputError for other types, and for a map that is
    too small.
    """
    op = "map_interpolate_"
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.ndim != 3 or not x.numel():
        raise InputError(f"{op}: x must be float32 (channels, h, w), got {describe(x)}")
    check_count(op, "group", group, 0)
    check_map(op, "out", out, group + groups_of(len(x)), height, width)
    return INTO_MAP(out, group, x.contiguous(), height, width)


def _pool(x: Tensor, x_pair: int, pairs: int, height: int, width: int, size: int, step: int) -> Tensor:
    image = channels_of(pixels(x[x_pair : x_pair + pairs], height, width)).float()
    return F.max_pool2d(image[None, :, 1:-1:2, 1:-1:2], size, step)[0]


def _interpolate(out: Tensor, out_pair: int, x: Tensor, height: int, width: int) -> Tensor:
    whole = -width % VECTOR  # what is left of the last vector is written as zeros
    rounded = F.pad(to_bfloat16(enlarge(x, height, width)), (0, whole))
    pixels(out[out_pair : out_pair + len(x) // 2], height, width + whole).copy_(pairs_of(rounded))
    return out


def _into_map(out: Tensor, group: int, x: Tensor, height: int, width: int) -> Tensor:
    for axis, length in ((1, height), (2, width)):
        first, second, share = positions(x.shape[axis], length, x.device)
        before = x.index_select(axis, first)
        x = before + (x.index_select(axis, second) - before) * (share[:, None] if axis == 1 else share)
    write(out, x, group * GROUP)
    return out


def _fake_pool(x: Tensor, x_pair: int, pairs: int, height: int, width: int, size: int, step: int) -> Tensor:
    rows, columns = (((side - 3) // 2 + 1 - size) // step + 1 for side in (height, width))
    return x.new_empty((2 * pairs, rows, columns), dtype=torch.float32)


POOL = on_cpu("pair_pool", torch.bfloat16, _pool, _fake_pool)
INTERPOLATE = on_cpu("pair_interpolate_", torch.bfloat16, _interpolate)
INTO_MAP = on_cpu("map_interpolate_", torch.float32, _into_map)
