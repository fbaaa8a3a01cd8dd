"""Definition of ``convolve_pixels_`` in plain PyTorch: direct sums in float64, then rounded. Slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import TILE, tiles_of


def convolve_pixels_(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    epilogue: Tensor,
    skip: Tensor | None,
    also: Tensor | None,
    tiles: Tensor | None,
    sums: Tensor | None,
    finite: Tensor | None,
    added: Tensor | None,
    count: Tensor | None,
    chosen: Tensor | None,
    size: int,
    stride: int,
    shuffle: int,
    gate: int,
    activation: int,
    cells: list[int],
    gain: float,
    cell: int,
) -> Tensor:
    outputs = shuffle**2 * (3 if out.dtype == torch.uint8 else out.shape[2])
    values = _values(x, weight, epilogue[:, :outputs], skip, also, size, stride, gate, activation)
    if tiles is not None and count is not None:
        tiles = tiles[: int(count)]
    wanted = _of_tiles(None if tiles is None else _numbers(tiles), *values.shape[:2]).to(x.device)
    if tiles is not None:
        emptied = _of_tiles(-2 - tiles, *values.shape[:2]).to(x.device)
        values = torch.where(emptied[..., None], torch.zeros_like(values), values)
    if chosen is not None:
        wanted &= _repeated(chosen, cell)[: wanted.shape[0], : wanted.shape[1]]
        values = torch.where(wanted[..., None], values, torch.zeros_like(values))  # of which no sums are taken
    values, wanted = _shuffled(values, shuffle), _repeated(wanted, shuffle)
    if out.dtype == torch.uint8:
        _write_pictures(out, values, wanted, finite, added, cells, gain)
        return out
    inside = _inside(cells, *values.shape[:2]).to(x.device)
    values = torch.where(inside[..., None], values, torch.zeros_like(values))
    if finite is not None:
        finite.logical_and_(torch.isfinite(values[wanted]).all())
    if sums is not None:
        kept = F.pad(values * 1.0, (0, 0, 0, -values.shape[1] % TILE[1], 0, -values.shape[0] % TILE[0]))
        each = kept.unflatten(1, (-1, TILE[1])).unflatten(0, (-1, TILE[0])).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        measured = torch.stack([each.sum(dim=1), each.square().sum(dim=1)], dim=1)
        listed = torch.arange(len(each), device=x.device) if tiles is None else _numbers(tiles)
        sums[listed] = measured[listed].to(sums.dtype)
    out[wanted] = values[wanted].to(out.dtype)
    return out


def _values(
    x: Tensor,
    weight: Tensor,
    epilogue: Tensor,
    skip: Tensor | None,
    also: Tensor | None,
    size: int,
    stride: int,
    gate: int,
    activation: int,
) -> Tensor:
    """What the layer makes, float64 (H', W', outputs), before a shuffle."""
    bias, slope, of_skip, of_also, of_sum = epilogue.double()
    if size == 0:
        values = x[..., : len(bias)].double()
    else:
        kernel = weight[..., : len(bias)].unflatten(0, (size, size)).permute(3, 2, 0, 1).double()
        padding = size // 2 if stride == 1 else 0
        values = F.conv2d(x.permute(2, 0, 1)[None].double(), kernel, stride=stride, padding=padding)[0].permute(1, 2, 0)
    values = values * of_sum + bias
    first = None if skip is None else skip.double() * of_skip
    if gate == 1:
        assert first is not None
        values = values.sigmoid() * first
    elif gate == 2:
        assert first is not None
        values = (values + first) * (values.sigmoid() - 0.5)
    else:
        for more in (first, None if also is None else also.double() * of_also):
            values = values if more is None else values + more
    if activation == 2:
        return F.silu(values)
    scaled = torch.where(slope == 0, torch.zeros_like(values), values * slope)
    return torch.where(values < 0, scaled, values) if activation == 1 else values


def _numbers(tiles: Tensor) -> Tensor:
    """Of a list, those that are computed or become zeros."""
    numbers = torch.where(tiles < -1, -2 - tiles, tiles)
    return numbers[numbers >= 0].long()


def _of_tiles(numbers: Tensor | None, height: int, width: int) -> Tensor:
    """bool (H, W): the pixels of these tiles, of which negative ones are none; of all without them."""
    down, across = tiles_of(height, width)
    chosen = torch.full((down * across,), numbers is None)
    if numbers is not None:
        chosen[numbers[numbers >= 0].long().cpu()] = True
    whole = chosen.view(down, across).repeat_interleave(TILE[0], dim=0).repeat_interleave(TILE[1], dim=1)
    return whole[:height, :width]


def _inside(cells: list[int], height: int, width: int) -> Tensor:
    """bool (H, W): the pixels of patches."""
    if not cells:
        return torch.ones(height, width, dtype=torch.bool)
    period_y, period_x, inset, end_y, end_x, _ = cells
    y, x = torch.arange(height) % period_y, torch.arange(width) % period_x
    return ((y >= inset) & (y < end_y))[:, None] & ((x >= inset) & (x < end_x))


def _repeated(pixels: Tensor, times: int) -> Tensor:
    return pixels.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1)


def _shuffled(values: Tensor, s: int) -> Tensor:
    """(H, W, s^2 P) -> (s H, s W, P): channels in the order row, column, channel."""
    return values.unflatten(2, (s, s, -1)).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def _write_pictures(
    out: Tensor,
    values: Tensor,
    wanted: Tensor,
    finite: Tensor | None,
    added: Tensor | None,
    cells: list[int],
    gain: float,
) -> None:
    count, height, width, _ = out.shape
    period_y, period_x, inset, _, _, across = cells or (0, 0, 0, 0, 0, 1)
    large = values * (255 * gain)
    if added is not None:
        image = added.permute(2, 0, 1)[None].double()
        large = large + F.interpolate(image, size=large.shape[:2], mode="bilinear")[0].permute(1, 2, 0)
    image = large.nan_to_num(nan=0.0).clamp(0, 255).round().to(torch.uint8)
    for i in range(count):
        top, left = i // across * period_y + inset, i % across * period_x + inset
        part = (slice(top, top + height), slice(left, left + width))
        chosen = wanted[part]
        out[i][chosen] = image[part][chosen]
        if finite is not None:
            finite.logical_and_(torch.isfinite(values[part][chosen]).all())
