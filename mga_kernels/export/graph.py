"""-M, or a whole network, as one graph of standard operators for any H and W: what the export formats are made from.

Everything is the network's own modules and the definitions of the operators, save what a graph for all sizes cannot
take: comparisons of sizes, and a sort whose rule for ties differs from runtime to runtime.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..networks import MaskGuidedNetwork, SRNetwork, WholeNetwork
from ..networks.amount import Amount
from ..networks.layers import Size, extended, number
from ..networks.mask import FILTER_SIZE
from ..networks.tiny import SIDE, border_width
from ..ops.mask_head.reference import mask_head


class MaskGuidedGraph(nn.Module):
    """Float image (1, 3, H, W) in [0, 1], any H and W -> (1, 3, sH, sW) in [0, 1], as ``MaskGuidedSR`` computes it.

    ``amount``: K, clamped to the number of cells, or a share of them. InputError for an amount or a selection that a
    graph cannot hold.
    """

    def __init__(self, network: MaskGuidedNetwork, amount: Amount):
        super().__init__()
        config = network.config
        if amount.threshold is not None or amount.max_ms is not None:
            raise InputError("export: a graph refines a fixed number of cells or a share of them; give k or fraction")
        if config.selection == "random":
            raise InputError("export: this model refines random cells, which graphs cannot draw; export another one")
        self.network, self.fraction = network, amount.fraction
        self.k = config.k if amount.k is None else amount.k
        self.minimum_size = config.definition.minimum_size

    def forward(self, image: Tensor) -> Tensor:
        network, (p, scale) = self.network, (self.network.config.patch_size, self.network.config.scale)
        image, borders = with_border(image, p)
        height, width = image.shape[-2:]
        seen = [torch.sym_max(side, self.minimum_size) for side in (height, width)]
        rows, columns = ((side + p - 1) // p for side in seen)
        coarse, feature = network.base(extended(image, *seen) * network.value_range)
        coarse = extended(coarse / network.value_range, rows * p * scale, columns * p * scale)
        if self.fraction != 0 and (self.fraction is not None or self.k > 0):
            coarse = self._refined(coarse, extended(feature, rows * p, columns * p), rows, columns)
        top, left = (border * scale for border in borders)
        return coarse.clamp(0, 1)[..., top : height * scale - top, left : width * scale - left]

    def _refined(self, coarse: Tensor, feature: Tensor, rows: Size, columns: Size) -> Tensor:
        """The coarse image with the selected cells refined."""
        network, p = self.network, self.network.config.patch_size
        count = self._count(rows * columns)
        # Runtimes do not agree on what a convolution of no patches is: one is refined then, and not used.
        taken = count if self.fraction is None else torch.sym_max(count, 1)
        index = select(self._mask(feature, columns), taken, network.config.selection)
        patches = network.refine(gather(feature, index, columns, p, network.halo)) / network.value_range
        place = pixels(index, columns, p * network.config.scale, 0, coarse.shape[3])
        colour = torch.arange(3, device=index.device)[:, None, None] * number(coarse.shape[2] * coarse.shape[3], index)
        place = (place[:, None] + colour).flatten()
        old, new = coarse.flatten(), patches.flatten()
        if self.fraction is not None:
            new = torch.where(number(count, index) > 0, new, old.index_select(0, place))
        return old.scatter(0, place, new).reshape(coarse.shape)

    def _count(self, cells: Size) -> Size:
        """K of an image of so many cells, in whole numbers: floats of a shape would be single precision in ONNX."""
        if self.fraction is None:
            return torch.sym_min(self.k, cells)
        share = Fraction(str(self.fraction)).limit_denominator(10**6)
        twice, unit = 2 * share.numerator * cells + share.denominator, 2 * share.denominator
        nearest = twice // unit
        half = 1 - torch.sym_min(twice % unit, 1)  # 1 half-way between two numbers, where the even one is taken
        return nearest - half * (nearest % 2)

    def _mask(self, feature: Tensor, columns: Size) -> Tensor:
        """Mask (cells,), as ``MaskPrediction`` has it."""
        head = self.network.mask
        feature = head.part(feature)
        (weight1, bias1), (weight2, bias2) = head.conv1.parameters(), head.conv2.parameters()
        weight, bias = head.conv_kernel.parameters()
        probability = mask_head(feature, weight1, bias1, weight2, bias2, head.patch_size, head.order)[:, None]
        by_probability = head.filter_source == "probability"
        source = probability if by_probability else F.avg_pool2d(feature, head.patch_size)
        filters = F.linear(source.flatten(2)[0].T, weight.flatten(1), bias)
        cells = torch.arange(filters.shape[0], device=feature.device)
        return (filters * gather(probability, cells, columns, 1, FILTER_SIZE // 2).flatten(1)).sum(dim=1)


class WholeGraph(nn.Module):
    """The same of a network without a mask, of which nothing is selected: InputError for an amount."""

    def __init__(self, network: WholeNetwork, amount: Amount):
        super().__init__()
        if amount:
            raise InputError(f"export: {network.config.network} is a whole network without a mask; give no amount")
        self.network, self.minimum_size = network, network.config.definition.minimum_size

    def forward(self, image: Tensor) -> Tensor:
        scale = self.network.config.scale
        image, borders = with_border(image, self.network.config.patch_size)
        height, width = image.shape[-2:]
        seen = [torch.sym_max(side, self.minimum_size) for side in (height, width)]
        result = self.network(extended(image, *seen)).clamp(0, 1)
        top, left = (border * scale for border in borders)
        return result[..., top : height * scale - top, left : width * scale - left]


def graph_of(network: SRNetwork, amount: Amount) -> MaskGuidedGraph | WholeGraph:
    """The graph of a network."""
    if isinstance(network, MaskGuidedNetwork):
        return MaskGuidedGraph(network, amount)
    if network.alternatives:
        raise InputError(
            "export: which of its networks a part of an image takes is decided when the part is seen, which a graph "
            "cannot; run this model with mga upscale"
        )
    if not isinstance(network, WholeNetwork):
        raise InputError(
            "export: this model refines regions, parts of an image that a graph for all of it cannot leave out; export "
            "the network from which it was made, as span-x4-regions was from span-x4"
        )
    return WholeGraph(network, amount)


def with_border(image: Tensor, cell: int) -> tuple[Tensor, list[Size]]:
    """``tiny.Border.around`` as ``extended`` is: the image, and how many LR pixels were put on each side of H and W."""
    borders = []
    for axis in (2, 3):
        side = image.shape[axis]
        border = border_width(cell) * torch.sym_max(0, torch.sym_min(1, SIDE - side))
        # From -border on, in the same places of a period above 0: runtimes do not agree on remainders of less.
        place = torch.arange(side + 2 * border, device=image.device) + number((2 * side - 1) * border, image)
        place = place % number(2 * side, image)
        image = image.index_select(axis, torch.minimum(place, number(2 * side, image) - 1 - place))
        borders.append(border)
    return image, borders


def select(mask: Tensor, k: Size, order: str) -> Tensor:
    """int64 (k,): the cells that ``select_patches`` takes, in raster order; ``mask`` (cells,), 1 <= k <= cells.

    Runtimes rank equal values in different ways, so their ranking decides the k-th value only. The cells above it are
    taken, and of those equal to it the first ones.
    """
    mask = -mask if order == "smallest" else mask
    least = mask.topk(k).values[-1:]
    above, equal = mask > least, mask == least
    room = number(k, mask) - above.to(torch.int64).sum()
    chosen = above | (equal & (equal.to(torch.int64).cumsum(0) <= room))
    countdown = torch.arange(mask.shape[0], 0, -1, device=mask.device)
    return torch.where(chosen, countdown, 0).topk(k).indices


def pixels(index: Tensor, columns: Size, p: int, halo: int, width: Size) -> Tensor:
    """Where the pixels of cells and their halo are, (k, p + 2h, p + 2h), in an image of this width, border included."""
    per_row, offset = number(columns, index), torch.arange(p + 2 * halo, device=index.device)
    y = (index // per_row * p)[:, None, None] + offset[:, None]
    x = (index % per_row * p)[:, None, None] + offset
    return y * number(width, index) + x


def gather(feature: Tensor, index: Tensor, columns: Size, p: int, halo: int) -> Tensor:
    """``gather_patches`` of one feature (1, C, H, W): (k, C, p + 2h, p + 2h)."""
    padded, side = F.pad(feature, (halo,) * 4), p + 2 * halo
    taken = padded.flatten(2)[0].index_select(1, pixels(index, columns, p, halo, padded.shape[3]).flatten())
    return taken.reshape(feature.shape[1], -1, side, side).permute(1, 0, 2, 3)
