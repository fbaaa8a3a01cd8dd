"""``convolve_pixels_``: a convolution on a GPU with all that follows it, up to the bytes of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ..grid import check_count, check_same_device, describe
from ..registry import FLOATS, Backend, Operator, TritonBackend
from . import reference
from .layout import ROWS, STEP, padded, tiles_of

OP = "convolve_pixels_"


def convolve_pixels_(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    epilogue: Tensor,
    skip: Tensor | None = None,
    also: Tensor | None = None,
    tiles: Tensor | None = None,
    sums: Tensor | None = None,
    finite: Tensor | None = None,
    added: Tensor | None = None,
    count: Tensor | None = None,
    chosen: Tensor | None = None,
    size: int = 3,
    stride: int = 1,
    shuffle: int = 1,
    gate: int = 0,
    activation: int = 0,
    cells: Sequence[int] = (),
    gain: float = 1.0,
    cell: int = 0,
) -> Tensor:
    """Convolve ``x`` into ``out`` and return it.

    ``x`` (H, W, C), floating, C a multiple of 16; ``weight`` of its dtype as ``pack_pixel_weight`` makes it, and
    ``epilogue`` float32 (5, C'): bias, slope, factor of skip, factor of also, factor of the sum. ``out``: floating
    (s H', s W', P) of any strides, or pictures uint8 (n, h, w, 3). ``skip`` and ``also``: floating (H', W', P).

    With kernel size n, ``stride`` t, reach r = n // 2 (0 for t = 2, which has no padding) and zeros beyond the image

        sum[o, y, x] = sum over i, dy, dx of weight[dy n + dx, i, o] * x[t y + dy - r, t x + dx - r, i]
        n = 0        sum[o] = x[o]
        v            = factor of the sum * sum + bias
        gate 0       v + factor of skip * skip + factor of also * also
        gate 1       sigmoid(v) * factor of skip * skip
        gate 2       (v + factor of skip * skip) * (sigmoid(v) - 0.5)

    and then, by ``activation``, 0: nothing; 1: times the slope where negative (0 for a slope of 0, whatever it is);
    2: SiLU. Of a ``shuffle`` s, output (dy s + dx) P + c is channel c of pixel (s y + dy, s x + dx). Sums are float32.

    Pictures: byte = round(255 * gain * value + e), half to even, in 0..255, NaN as 0, where e is 0 or the bilinear
    enlargement of the image ``added``, uint8 (h, w, 3).

    ``cells`` (period of rows, of columns, first, end of rows, of columns, across), in pixels of ``out``: it is a raster
    of patches, of which pixel (y, x) is where first <= y % period < end, and the same for x. Others are written as
    zeros. Picture i is the part from i // across periods down and i % across to the right on, from ``first`` on.

    ``tiles``: int32 (n), numbers of tiles of 8 x 16 pixels, row by row, of what is made before a shuffle; -1 for none,
    and -2 - i for tile i whose values become zeros. Only these are written, and the others stay. ``count``: int32 (),
    how many of the list there are, all without it; the host does not look at it, so that a CUDA graph serves every
    list that is no longer than n. ``chosen``: bool (rows, columns), of cells of ``cell`` x ``cell`` pixels of what is
    made before a shuffle; pixels of other cells stay.

        out[:, y, x] stays unless y, x is in tile i, i or -2 - i in tiles[: count], and chosen[y // cell, x // cell]

    ``sums``: float32 (tiles of the image, 2, P), which takes the sums of the values of each tile that is written, and
    of their squares, before they are rounded. ``finite``: bool (), made False where a value that is written is not
    finite.

    ``out`` must not be what is read, but may be what is added. Raises InputError for other shapes and dtypes. Not
    differentiable.
    """
    size, stride, shuffle = (
        check_count(OP, name, value, least)
        for name, value, least in (("size", size, 0), ("stride", stride, 1), ("shuffle", shuffle, 1))
    )
    _check_numbers(size, stride, shuffle, gate, activation, cells)
    made = _check_layer(out, x, weight, epilogue, size, stride, shuffle)
    _check_others(out, skip, also, sums, finite, added, gate, shuffle, made)
    cell = _check_list(tiles, count, chosen, cell, made)
    tensors = x, weight, epilogue, skip, also, tiles, sums, finite, added, count, chosen
    check_same_device(OP, out, *(tensor for tensor in tensors if tensor is not None))
    return OPERATOR(out, *tensors, size, stride, shuffle, gate, activation, list(cells), float(gain), cell)


def _check_numbers(size: int, stride: int, shuffle: int, gate: int, activation: int, cells: Sequence[int]) -> None:
    if size > 9 or (size != 0 and size % 2 == 0) or stride > 2 or (size == 0 and stride == 2):
        raise InputError(f"{OP}: size must be 0 or odd up to 9 and stride 1 or 2, got {size} and {stride}")
    if not (0 <= gate <= 2 and 0 <= activation <= 2 and shuffle <= 4):
        raise InputError(
            f"{OP}: gate and activation must be 0, 1 or 2 and shuffle 1 to 4, got {gate}, {activation} and {shuffle}"
        )
    if len(cells) not in (0, 6):
        raise InputError(f"{OP}: cells must be none or six numbers, got {len(cells)}")


def _check_layer(
    out: Tensor, x: Tensor, weight: Tensor, epilogue: Tensor, size: int, stride: int, shuffle: int
) -> tuple[int, int]:
    """Rows and columns of what is made before a shuffle."""
    floats = isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() and x.numel() > 0
    if not floats or (size and x.shape[2] % STEP):
        raise InputError(f"{OP}: x must be floating (H, W, C) with C a multiple of {STEP}, got {describe(x)}")
    taken = 0 if stride == 1 else size - 1
    made = tuple((side - taken - 1) // stride + 1 for side in x.shape[:2])
    picture = isinstance(out, Tensor) and out.dtype == torch.uint8 and out.ndim == 4 and out.shape[3] == 3
    if not picture and not (isinstance(out, Tensor) and out.ndim == 3 and out.is_floating_point()):
        raise InputError(f"{OP}: out must be floating (H, W, C) or uint8 (n, h, w, 3), got {describe(out)}")
    if not picture and tuple(out.shape[:2]) != tuple(shuffle * side for side in made):
        wanted = "x".join(str(shuffle * side) for side in made)
        raise InputError(f"{OP}: out must have {wanted} pixels, got {out.shape[0]}x{out.shape[1]}")
    outputs = shuffle**2 * (3 if picture else out.shape[2])
    channels = padded(outputs)
    if tuple(epilogue.shape) != (len(ROWS), channels) or epilogue.dtype != torch.float32:
        raise InputError(f"{OP}: epilogue must be float32 ({len(ROWS)}, {channels}), got {describe(epilogue)}")
    if size and (tuple(weight.shape) != (size * size, x.shape[2], channels) or weight.dtype != x.dtype):
        raise InputError(
            f"{OP}: weight must be {x.dtype} {(size * size, x.shape[2], channels)} as pack_pixel_weight makes it, "
            f"got {describe(weight)}"
        )
    if size == 0 and x.shape[2] < outputs:
        raise InputError(f"{OP}: x has {x.shape[2]} channels, and {outputs} are scaled")
    return made[0], made[1]


def _check_others(
    out: Tensor,
    skip: Tensor | None,
    also: Tensor | None,
    sums: Tensor | None,
    finite: Tensor | None,
    added: Tensor | None,
    gate: int,
    shuffle: int,
    made: tuple[int, int],
) -> None:
    picture = out.dtype == torch.uint8
    for name, one in (("skip", skip), ("also", also)):
        if one is not None and (picture or shuffle > 1 or one.shape != out.shape or not one.is_floating_point()):
            raise InputError(
                f"{OP}: {name} must be floating and as large as out, without a shuffle, got {describe(one)}"
            )
    if gate and skip is None:
        raise InputError(f"{OP}: gate {gate} multiplies skip, which is missing")
    down, across = tiles_of(*made)
    if sums is not None and (
        picture or shuffle > 1 or sums.dtype != torch.float32 or tuple(sums.shape) != (down * across, 2, out.shape[2])
    ):
        raise InputError(
            f"{OP}: sums must be float32 ({down * across}, 2, channels of out), without a shuffle, got {describe(sums)}"
        )
    if finite is not None and (finite.dtype != torch.bool or finite.ndim):
        raise InputError(f"{OP}: finite must be a bool of no dimension, got {describe(finite)}")
    if added is not None and (not picture or added.dtype != torch.uint8 or added.ndim != 3 or added.shape[2] != 3):
        raise InputError(f"{OP}: added must be uint8 (h, w, 3), for pictures, got {describe(added)}")


def _check_list(
    tiles: Tensor | None, count: Tensor | None, chosen: Tensor | None, cell: int, made: tuple[int, int]
) -> int:
    """The side of a cell, 0 where none are chosen."""
    if tiles is not None and (tiles.ndim != 1 or tiles.dtype != torch.int32):
        raise InputError(f"{OP}: tiles must be int32 (n), got {describe(tiles)}")
    if count is not None and (tiles is None or count.ndim or count.dtype != torch.int32):
        raise InputError(f"{OP}: count must be int32 (), of a list of tiles, got {describe(count)}")
    if chosen is None:
        return 0
    cell = check_count(OP, "cell", cell, 1)
    least = tuple(-(-side // cell) for side in made)
    if chosen.dtype != torch.bool or chosen.ndim != 2 or any(n < m for n, m in zip(chosen.shape, least, strict=True)):
        raise InputError(
            f"{OP}: chosen must be bool (rows, columns) of at least {least[0]}x{least[1]} cells, got {describe(chosen)}"
        )
    return cell


def _refuses(out: Tensor, x: Tensor, weight: Tensor, epilogue: Tensor, *others: object) -> str | None:
    for tensor in (x, weight, epilogue, *others):
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype not in FLOATS:
            return f"{tensor.dtype} is not among its dtypes"
    if x.stride(2) != 1 or x.stride(0) % STEP or x.stride(1) % STEP:
        return f"the channels of x do not lie side by side at multiples of {STEP}"
    if not weight.is_contiguous() or not epilogue.is_contiguous():
        return "weight or epilogue are not contiguous"
    return None


OPERATOR = Operator[Tensor](
    OP,
    TritonBackend(
        OP,
        f"{__name__}.triton",
        reference.convolve_pixels_,
        (*FLOATS, torch.uint8),
        _refuses,
        changes=("out", "sums", "finite"),
    ),
    Backend(reference.convolve_pixels_),
)
