"""``convolve_maps_``: layers over float maps, one after the other; 3x3 and 5x5 ones in tiles, with fewer products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from ...alone.layout import GROUP, groups_of
from ...errors import InputError
from ...records import FrameRecord, LayerRecord, MapRecord
from ..grid import describe
from ..registry import Backend, Operator
from . import maps_reference
from .listed import ListedBackend, Mask, check_lists, check_masks, sums_of
from .map_layout import is_picture

OP = "convolve_maps_"


def convolve_maps_(
    tensors: Sequence[Tensor],
    maps: Sequence[MapRecord],
    masks: Sequence[Mask],
    weights: Sequence[Tensor],
    epilogues: Sequence[Tensor],
    layers: Sequence[LayerRecord],
    tiles: Sequence[Tensor],
    frame: FrameRecord,
    gain: float = 1.0,
    added: Tensor | None = None,
) -> list[Tensor]:
    """Run ``layers`` in their order over an image of ``frame.height`` x ``frame.width`` pixels, into ``tensors``.

    ``tensors``, each with a record: maps, float32 (H, C / 8, pitch, 8) as ``alone.layout`` says; where a layer ends,
    also float planes (C, H, W) or pictures (n, h, w, 3), uint8 or float32. One of scale s holds an image s times as
    large.
    ``masks``: int16 (ceil(W / 16)), a bit a pixel of a row, and uint8 (H), one a row. ``weights``: as
    ``pack_map_weight`` makes them, of a layer in tiles also as ``plain_map_weight`` does; of size 0 a factor for each
    channel. ``epilogues``: float32 (4, channels up to a
    multiple of 8): bias, slope, factor of skip, factor of also.

    A layer of size n, stride t and reach r = n // 2 (0 for t = 2, which has no padding) makes, channel by channel,

        sum[o, y, x] = bias[o] + sum over i, dy, dx of weight[o, i, dy, dx] * x[i, t y + dy - r, t x + dx - r]
        size 0       sum[o] = bias[o] + factor[o] * x[o]
        gate 0       out = act(sum + factor of skip * skip + factor of also * also)
        gate 1       out = act(sigmoid(sum) * factor * skip)
        gate 2       out = act((sum + factor * skip) * (sigmoid(sum) - 0.5))

    with act(v) = v * slope where v < 0 (0 for a slope of 0, whatever v is), or v * sigmoid(v). With a pixel shuffle of
    s, channel (dy s + dx) P + c of the weight makes out[c, s y + dy, s x + dx], P channels of out; without activation
    of its own. Beyond the image and outside the mask of its map x is zero, and out is written as zero at masked pixels;
    masked rows are not written.

    Pictures: channel dy 3s + dx 3 + c is colour c of pixel (s y + dy, s x + dx), and byte = round(255 * gain * value +
    e), half to even, in 0..255, NaN as 0, where e is 0 or the bilinear enlargement of the image ``added``, uint8
    (H, W, 3). Where they are float32, number = gain * value + e / 255, in [0, 1]; ``added`` may be float32 in [0, 1],
    too, and e is then the enlargement of 255 times it. ``frame`` says where each picture is cut out.

    ``parts``, of a 9x9 kernel with at most 3 outputs: a map with what its nine blocks of 3x3 make of x, in the channels
    that ``alone.layout.PARTS`` says, and zeros beside the image. The sum is then that of nine parts,

        sum[o, y, x] = bias[o] + sum over i, j of parts[PARTS[i][j][o], y + 3 (i - 1), x + 3 (j - 1)]

    and as above in rows and columns 2 and third from the last, where such a part has its centre beside the image.

    ``tiles``: lists, int32 (n) in ascending order, of tiles of ``tile`` x ``tile`` pixels (4 x 4 where it is 0), row by
    row, of what a layer makes before its shuffle. A layer with a list computes these and leaves the others as they are;
    those of its list ``zeros``, if it has one and ends in a map, become zeros. A layer with a ``patch`` has no list and
    computes the tiles that fill such patches, in rows and columns inset + i * step to inset + i * step + patch - 1 for
    whole numbers i; the last of them must lie within what it makes.

    With a ``band`` in ``frame`` layers run together, that many rows of the image at a time, each ``lead`` rows ahead of
    the last one; the results are the same. A map that layers write before they read it then needs only as many rows as
    are in use at a time: row y is at y % rows, and what it holds afterwards is not defined.

    Sums are float32. ``tile`` 4 and 6 say in which tiles a 3x3 kernel is computed (Winograd's F(4x4, 3x3), F(6x6,
    3x3)): with 1 / 4 and 1 / 5 of the products, and about 2 and 8 times the rounding errors of a plain sum; 4 of a 5x5
    kernel is F(4x4, 5x5), with 1 / 6 of the products and about 5 times the errors. A tile that meets an infinity or NaN
    is computed plainly. A result does not depend on the number of threads, nor on which other tiles are computed.

    Returns float64 (2, outputs) for each layer that ``statistics`` number: sums of its results over the pixels of the
    mask, and of their squares.

    A layer must not write what it reads, but may write over what it adds. Raises InputError for records that name what
    is not there, for tensors of other shapes and dtypes, and for leads and rows with which a layer would not find what
    it reads.
    """
    _check(tensors, maps, masks, weights, epilogues, layers, tiles)
    statistics = sums_of(OP, "layer", layers, [layer.outputs for layer in layers])
    lists = map(list, (tensors, maps, masks, weights, epilogues, layers, tiles))
    return OPERATOR(*lists, statistics, frame, float(gain), added)


def _check(
    tensors: Sequence[Tensor],
    maps: Sequence[MapRecord],
    masks: Sequence[Mask],
    weights: Sequence[Tensor],
    epilogues: Sequence[Tensor],
    layers: Sequence[LayerRecord],
    tiles: Sequence[Tensor],
) -> None:
    check_lists(OP, "layer", layers, weights, epilogues)
    if len(maps) != len(tensors):
        raise InputError(f"{OP}: {len(tensors)} tensors for {len(maps)} records of maps; each tensor has one")
    for tensor in tensors:
        floats = isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and tensor.ndim in (3, 4)
        if not floats and not (isinstance(tensor, Tensor) and tensor.dtype == torch.uint8):
            raise InputError(f"{OP}: tensors must be maps, float planes or pictures, got {describe(tensor)}")
        if floats and tensor.ndim == 4 and tensor.shape[3] != GROUP and not is_picture(tensor):
            raise InputError(f"{OP}: a map must be float32 (H, C / 8, pitch, 8), got {describe(tensor)}")
    check_masks(OP, "map", maps, masks)
    for i, layer in enumerate(layers):
        used = (layer.x, layer.out, max(layer.skip, 0), max(layer.also, 0), max(layer.parts, 0))
        if not all(0 <= number < len(maps) for number in used) or max(layer.tiles, layer.zeros) >= len(tiles):
            raise InputError(f"{OP}: layer {i} names maps or tiles that there are not")
        channels = groups_of(layer.outputs) * GROUP
        if tuple(epilogues[i].shape) != (4, channels):
            raise InputError(f"{OP}: layer {i} needs an epilogue (4, {channels}), got {describe(epilogues[i])}")


_native.register_writing(OP)
OPERATOR = Operator[list[Tensor]](OP, ListedBackend(OP), Backend(maps_reference.convolve_maps_))
