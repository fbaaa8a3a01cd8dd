"""Triton kernel of ``convolve_pixels_``: an implicit matrix product, one launch a layer.

A program takes tiles of 8 x 16 pixels and a block of outputs in turn. It goes over the taps and the channels of a tap
in one loop, whose loads run ahead of the products (``num_stages``), and finishes the block in registers.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import dot, finite_words, float32_precision, offset_type
from .layout import TILE, block_of, padded, tiles_of

PROGRAMS_EACH = 4  # programs of a multiprocessor: as many as the larger blocks leave shared memory for, and one more
PROCESSORS = 132  # where there is no GPU to ask
# What differs between images and shall not make a kernel of its own where it is 1 or a multiple of 16.
COUNTS = ["units", "tiles_x", "height", "width", "x_height", "x_width", "pictures", "picture_height", "picture_width"]
COUNTS += ["added_height", "added_width", "added_y", "chosen_columns", "end_y", "end_x", "programs"]


@triton.jit
def enlarged(added, y, x, c, inside, height, width, stride, RATIO: tl.constexpr):
    """Bilinear, pixel centres at halves: bytes (h, w, 3) at pixels of an image RATIO times as large."""
    v = tl.maximum((y.to(tl.float32) + 0.5) / RATIO - 0.5, 0.0)
    u = tl.maximum((x.to(tl.float32) + 0.5) / RATIO - 0.5, 0.0)
    top = v.to(tl.int32)
    left = u.to(tl.int32)
    v -= top.to(tl.float32)
    u -= left.to(tl.float32)
    below = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    first = added + c
    a = tl.load(first + top * stride + left * 3, mask=inside, other=0).to(tl.float32)
    b = tl.load(first + top * stride + right * 3, mask=inside, other=0).to(tl.float32)
    low = tl.load(first + below * stride + left * 3, mask=inside, other=0).to(tl.float32)
    d = tl.load(first + below * stride + right * 3, mask=inside, other=0).to(tl.float32)
    upper = a + u * (b - a)
    return upper + v * (low + u * (d - low) - upper)


@triton.jit
def products(
    values,  # what they are added to, (M, BLOCK_N)
    x,
    weight,
    here,  # (M): whether there is a pixel,
    top,  # and the first that its kernel reads
    left,
    n,
    x_height,
    x_width,
    x_y,
    x_x,
    CHANNELS: tl.constexpr,
    N: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    OFFSET: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The sums of a tile, over the taps and the channels of a tap."""
    k = tl.arange(0, BLOCK_K)
    corner = top.to(OFFSET) * x_y + left.to(OFFSET) * x_x
    for step in tl.range(0, SIZE * SIZE * (CHANNELS // BLOCK_K), num_stages=STAGES):
        tap = step // (CHANNELS // BLOCK_K)
        first = step % (CHANNELS // BLOCK_K) * BLOCK_K
        dy = tap // SIZE
        dx = tap % SIZE
        inside = here & (top + dy >= 0) & (top + dy < x_height) & (left + dx >= 0) & (left + dx < x_width)
        shift = dy.to(OFFSET) * x_y + dx.to(OFFSET) * x_x + first
        a = tl.load(x + shift + (corner[:, None] + k[None, :]), mask=inside[:, None], other=0.0)
        b = tl.load(weight + (tap * CHANNELS + first + k)[:, None] * N + n[None, :])
        values = dot(a, b, values, PRECISION)
    return values


# One kernel for maps of all sizes and all lists, wherever they begin; for pictures one for each alignment of rows.
@triton.jit(do_not_specialize=COUNTS, do_not_specialize_on_alignment=["tiles", "count", "chosen", "out_c"])
def convolve_pixels_kernel(
    out,  # (s H', s W', P), or bytes (n, h, w, 3)
    x,  # (H, W, C)
    weight,  # (n * n, C, N)
    epilogue,  # (5, N)
    skip,  # (H', W', P)
    also,
    tiles,  # int32
    sums,  # (tiles, 2, P)
    finite,  # a byte
    added,  # bytes (h, w, 3)
    count,  # int32
    chosen,  # bytes (rows, columns)
    units,  # tiles times blocks of outputs
    tiles_x,
    height,  # H'
    width,
    x_height,
    x_width,
    out_n,  # strides
    out_y,
    out_x,
    out_c,
    x_y,
    x_x,
    skip_y,
    skip_x,
    also_y,
    also_x,
    pictures,  # n, h, w
    picture_height,
    picture_width,
    added_height,
    added_width,
    added_y,
    chosen_columns,
    end_y,  # of a patch
    end_x,
    factor,  # 255 * gain
    programs,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,  # s^2 P
    N: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    SHUFFLE: tl.constexpr,
    GATE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_ALSO: tl.constexpr,
    HAS_TILES: tl.constexpr,
    HAS_SUMS: tl.constexpr,
    HAS_FINITE: tl.constexpr,
    HAS_COUNT: tl.constexpr,
    CELL: tl.constexpr,  # pixels of the side of a cell, 0 where none are chosen
    ADDED: tl.constexpr,  # by which it is enlarged, 0 for none
    BYTES: tl.constexpr,  # of a word that is written of a picture, 0 where out is floating
    CELLS: tl.constexpr,
    PERIOD_Y: tl.constexpr,
    PERIOD_X: tl.constexpr,
    FIRST: tl.constexpr,
    ACROSS: tl.constexpr,
    OFFSET: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    M: tl.constexpr = TILE_Y * TILE_X
    PARTS: tl.constexpr = N // BLOCK_N
    REACH: tl.constexpr = SIZE // 2 if STRIDE == 1 else 0
    m = tl.arange(0, M)
    if HAS_COUNT:
        units = tl.minimum(units, tl.load(count) * PARTS)
    for unit in tl.range(tl.program_id(0), units, programs):
        tile = unit // PARTS
        n = unit % PARTS * BLOCK_N + tl.arange(0, BLOCK_N)
        if HAS_TILES:
            listed = tl.load(tiles + tile)
            tile = tl.where(listed < -1, -2 - listed, listed)
        y = tile // tiles_x * TILE_Y + m // TILE_X
        column = tile % tiles_x * TILE_X + m % TILE_X
        here = (tile >= 0) & (y < height) & (column < width)
        if CELL > 0:
            cell = y // CELL * chosen_columns + column // CELL
            here = here & (tl.load(chosen + cell, mask=here, other=0) != 0)

        if SIZE == 0:
            source = y.to(OFFSET) * x_y + column.to(OFFSET) * x_x
            asked = here[:, None] & (n < OUTPUTS)[None, :]
            values = tl.load(x + (source[:, None] + n[None, :]), mask=asked, other=0.0).to(tl.float32)
        else:
            values = tl.zeros((M, BLOCK_N), tl.float32)
            top = y * STRIDE - REACH
            left = column * STRIDE - REACH
            if not HAS_TILES or listed >= 0:  # what becomes zeros, or is none, is not multiplied for
                values = products(
                    *(values, x, weight, here, top, left, n, x_height, x_width, x_y, x_x),
                    *(CHANNELS, N, SIZE, BLOCK_K, OFFSET, STAGES, PRECISION),
                )

        values = values * tl.load(epilogue + 4 * N + n)[None, :] + tl.load(epilogue + n)[None, :]
        known = here[:, None] & (n < OUTPUTS)[None, :]
        if HAS_SKIP:
            place = y.to(OFFSET) * skip_y + column.to(OFFSET) * skip_x
            first_added = tl.load(skip + (place[:, None] + n[None, :]), mask=known, other=0.0).to(tl.float32)
            first_added *= tl.load(epilogue + 2 * N + n)[None, :]
            if GATE == 0:
                values += first_added
            elif GATE == 1:
                values = tl.sigmoid(values) * first_added
            else:
                values = (values + first_added) * (tl.sigmoid(values) - 0.5)
        if HAS_ALSO:
            place = y.to(OFFSET) * also_y + column.to(OFFSET) * also_x
            second_added = tl.load(also + (place[:, None] + n[None, :]), mask=known, other=0.0).to(tl.float32)
            values += second_added * tl.load(epilogue + 3 * N + n)[None, :]
        if ACTIVATION == 1:
            slope = tl.load(epilogue + N + n)[None, :]
            values = tl.where(values < 0, tl.where(slope == 0, 0.0, values * slope), values)
        elif ACTIVATION == 2:
            values = values * tl.sigmoid(values)
        if HAS_TILES:
            values = tl.where(listed >= 0, values, 0.0)

        if BYTES == 0:
            P: tl.constexpr = OUTPUTS // (SHUFFLE * SHUFFLE)
            if SHUFFLE == 1:
                if CELLS:
                    row = y % PERIOD_Y
                    across = column % PERIOD_X
                    kept = (row >= FIRST) & (row < end_y) & (across >= FIRST) & (across < end_x)
                    values = tl.where(kept[:, None], values, 0.0)
                target = (y.to(OFFSET) * out_y + column.to(OFFSET) * out_x)[:, None] + (n * out_c)[None, :]
            else:
                phase = n // P
                long_y = (y * SHUFFLE)[:, None] + (phase // SHUFFLE)[None, :]
                long_x = (column * SHUFFLE)[:, None] + (phase % SHUFFLE)[None, :]
                if CELLS:
                    row = long_y % PERIOD_Y
                    across = long_x % PERIOD_X
                    kept = (row >= FIRST) & (row < end_y) & (across >= FIRST) & (across < end_x)
                    values = tl.where(kept, values, 0.0)
                corner_out = (y * SHUFFLE).to(OFFSET) * out_y + (column * SHUFFLE).to(OFFSET) * out_x
                of_phase = (phase // SHUFFLE).to(OFFSET) * out_y + (phase % SHUFFLE).to(OFFSET) * out_x
                target = corner_out[:, None] + (of_phase + n % P * out_c)[None, :]
            if HAS_SUMS:
                counted = tl.where(known, values, 0.0)
                goal = sums + tile.to(tl.int64) * (2 * OUTPUTS) + n
                tl.store(goal, tl.sum(counted, 0), mask=(n < OUTPUTS) & (tile >= 0))
                tl.store(goal + OUTPUTS, tl.sum(counted * counted, 0), mask=(n < OUTPUTS) & (tile >= 0))
            if HAS_FINITE:
                sound = tl.min(tl.where(known, finite_words(values), 1))
                tl.store(finite, 0, mask=sound == 0)
            tl.store(out + target, values.to(out.dtype.element_ty), mask=known)
        else:
            COLOURS: tl.constexpr = 3 * SHUFFLE
            WORDS: tl.constexpr = BLOCK_N // BYTES  # of several bytes, which lie in one row of one picture
            sound = finite_words(values)
            values = values * factor
            if ADDED > 0:
                long_y = (y * SHUFFLE)[:, None] + (n // COLOURS)[None, :]
                long_x = (column * SHUFFLE)[:, None] + (n % COLOURS // 3)[None, :]
                colour = (n % 3)[None, :]
                values += enlarged(added, long_y, long_x, colour, known, added_height, added_width, added_y, ADDED)
            values = tl.where(values < 0, 0.0, tl.where(values > 255, 255.0, values))
            values = (values + 12582912.0) - 12582912.0  # above 2^23, floats are whole numbers
            values = tl.where(values != values, 0.0, values)

            first = unit % PARTS * BLOCK_N + tl.arange(0, WORDS) * BYTES
            row = (y * SHUFFLE)[:, None] + (first // COLOURS)[None, :]
            across = (column * SHUFFLE)[:, None] + (first % COLOURS // 3)[None, :]
            seen = here[:, None] & (first < OUTPUTS)[None, :]
            goal = tl.zeros_like(row).to(OFFSET)
            if CELLS:
                number = row // PERIOD_Y * ACROSS + across // PERIOD_X
                seen = seen & (number < pictures) & (across // PERIOD_X < ACROSS)
                row = row % PERIOD_Y - FIRST
                across = across % PERIOD_X - FIRST
                goal = number.to(OFFSET) * out_n
            seen = seen & (row >= 0) & (row < picture_height) & (across >= 0) & (across < picture_width)
            goal += row.to(OFFSET) * out_y + (across * 3 + (first % 3)[None, :])
            if BYTES == 1:
                tl.store(out + goal, values.to(tl.uint8), mask=seen)
            else:
                sound = tl.min(tl.reshape(sound, (M, WORDS, BYTES)), 2)
                shifted = values.to(tl.int32) << (n % BYTES * 8)[None, :]
                word = tl.sum(tl.reshape(shifted, (M, WORDS, BYTES)), 2)
                if BYTES == 4:
                    tl.store((out + goal).to(tl.pointer_type(tl.int32)), word, mask=seen)
                else:
                    tl.store((out + goal).to(tl.pointer_type(tl.int16)), word.to(tl.int16), mask=seen)
            if HAS_FINITE:
                tl.store(finite, 0, mask=tl.min(tl.where(seen, sound, 1)) == 0)


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
) -> None:
    picture = out.dtype == torch.uint8
    outputs = shuffle**2 * (3 if picture else out.shape[2])
    taken = 0 if stride == 1 else size - 1
    height, width = ((side - taken - 1) // stride + 1 for side in x.shape[:2])
    down, across = tiles_of(height, width)
    total, block = padded(outputs), block_of(outputs)
    units = (down * across if tiles is None else len(tiles)) * (total // block)
    if units == 0 or out.numel() == 0:
        return
    read = [one if one.stride(2) == 1 else one.contiguous() for one in (skip, also) if one is not None]
    skip_of, also_of = (read[0] if skip is not None else x), (read[-1] if also is not None else x)
    strides = (out.stride(0) if len(out) > 1 else 0, *out.stride()[1:]) if picture else (0, *out.stride())
    reach = [side * step for one in (x, skip_of, also_of) for side, step in zip(one.shape, one.stride(), strict=True)]
    reach += [side * step for side, step in zip(out.shape, out.stride(), strict=True)]
    counts = tuple(out.shape[:3]) if picture else (0, 0, 0)
    period_y, period_x, first, *ends, beside = cells or (0, 0, 0, 0, 0, 1)
    half = x.element_size() == 2
    most = 16 if not half else 64 if block > 32 else 32  # with 64, bytes spill on sm_100 where outputs are few
    block_k = next(k for k in (64, 32, 16) if k <= most and x.shape[2] % k == 0)
    listed = tiles is not None
    wide = block == 128 or (picture and (listed or block == 64)) or (listed and block_k == 16)
    programs = min(units, PROGRAMS_EACH * _processors(x.device))
    convolve_pixels_kernel[(programs,)](
        out,
        x,
        weight,
        epilogue,
        skip_of,
        also_of,
        tiles,
        sums,
        None if finite is None else finite.view(torch.uint8),
        added,
        count,
        None if chosen is None else chosen.contiguous().view(torch.uint8),
        units,
        across,
        height,
        width,
        x.shape[0],
        x.shape[1],
        *strides,
        x.stride(0),
        x.stride(1),
        skip_of.stride(0),
        skip_of.stride(1),
        also_of.stride(0),
        also_of.stride(1),
        *counts,
        *((0, 0, 0) if added is None else (*added.shape[:2], added.stride(0))),
        0 if chosen is None else chosen.shape[1],
        *ends,
        255.0 * gain,
        programs,
        CHANNELS=x.shape[2],
        OUTPUTS=outputs,
        N=total,
        SIZE=size,
        STRIDE=stride,
        SHUFFLE=shuffle,
        GATE=gate,
        ACTIVATION=activation,
        HAS_SKIP=skip is not None,
        HAS_ALSO=also is not None and gate == 0,
        HAS_TILES=listed,
        HAS_SUMS=sums is not None,
        HAS_FINITE=finite is not None,
        HAS_COUNT=count is not None,
        CELL=cell,
        ADDED=0 if added is None else shuffle * height // added.shape[0],
        BYTES=_word(out, shuffle, first, period_x) if picture else 0,
        CELLS=bool(cells),
        PERIOD_Y=period_y,
        PERIOD_X=period_x,
        FIRST=first,
        ACROSS=beside,
        OFFSET=offset_type(max(reach)),
        TILE_Y=TILE[0],
        TILE_X=TILE[1],
        BLOCK_N=block,
        BLOCK_K=block_k,
        STAGES=(3 if block_k == 64 else 4) if half else 2,
        PRECISION=float32_precision(),
        num_warps=8 if wide else 4,  # with fewer, bytes spill on gfx942, or on sm_120 where few channels are read
    )


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else PROCESSORS


def _word(out: Tensor, shuffle: int, first: int, period: int) -> int:
    """Bytes of the words in which pictures can be written: whole ones in what a pixel becomes, 3 s bytes in a row."""
    if first % shuffle or period % shuffle or out.shape[2] % shuffle:
        return 1
    return math.gcd(4, 3 * shuffle, out.data_ptr(), out.stride(1), out.stride(0) if len(out) > 1 else 4)
