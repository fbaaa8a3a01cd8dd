"""Parameters and multiply-accumulates of a mask-guided or a whole network, counted on the meta device.

The paper calls its figures FLOPs and does not say how it counts. Its tables agree with this convention:

* A convolution costs its multiply-accumulates, without the bias; a transposed one is charged for each position of its
  *output*. An activation of the ReLU family costs one for each value. Nothing else costs anything in the five networks;
  other products that a user's network may contain (linear layers, attention) cost their multiply-accumulates.
* The LR image is cropped to a multiple of p: H/p x W/p = N cells.
* -B is the Base-Net; -A adds N patches of (p + 2h)^2 pixels, -M the Mask Prediction (MP) module and min(K, N) patches.
* -D adds the Refine-Net over H x W pixels as if all its convolutions were padded: the border of h pixels that ours
  needs around the feature is not charged.
* The second convolution of the MP module is charged once for each cell, as if the mean over the cell were taken before
  it (the released code takes it after the softmax).

Beside it stands the plain count of ``torch.utils.flop_counter`` for what this implementation computes: two operations
for each multiply-accumulate, no activations, transposed convolutions by their input, -D with its border and the MP
module with its convolutions at full resolution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from mga_kernels.errors import InputError, MGAError
from mga_kernels.networks import (
    VARIANTS,
    BlackBoxConfig,
    ClassConfig,
    ClassNetwork,
    Config,
    MaskGuidedNetwork,
    ModelConfig,
    RegionConfig,
    WholeConfig,
    WholeNetwork,
)
from mga_kernels.networks.copies import private_copy

aten = torch.ops.aten
RELU_FAMILY = frozenset(
    (aten.relu, aten.relu_, aten.leaky_relu, aten.leaky_relu_, aten._prelu_kernel, aten.hardtanh, aten.hardtanh_)
)
PROBE = 240  # side of the smallest feature at which the cost of the Refine-Net for each pixel is measured; 2^4 * 3 * 5


@dataclass(frozen=True)
class Cost:
    """``macs`` by the paper's convention, ``flops`` by torch's counter."""

    macs: float = 0
    flops: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.flops + other.flops)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.macs * times, self.flops * times)


class _Counter(TorchDispatchMode):
    """Adds up what the operators under it cost.

    An operator is counted once for the same arguments, since networks repeat their blocks and PyTorch takes long to
    tell the shape of a result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.flops = 0
        self.known: dict[str, tuple[torch.Size, tuple[int, ...], torch.dtype, int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        key = "" if func._schema.is_mutable else f"{func}{tree_map_only(Tensor, _layout, (args, kwargs))}"
        if key in self.known:
            shape, stride, dtype, macs, flops = self.known[key]
            result = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        else:
            result = func(*args, **(kwargs or {}))
            macs, flops = _cost(func.overloadpacket, args, kwargs or {}, result)
            if key and isinstance(result, Tensor):
                self.known[key] = *_layout(result), macs, flops
        self.macs += macs
        self.flops += flops
        return result


def _layout(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    return tensor.shape, tensor.stride(), tensor.dtype


def _cost(operator: Any, args: tuple, kwargs: dict, result: Any) -> tuple[int, int]:
    """MACs and FLOPs of an operator."""
    flops = flop_registry[operator](*args, **kwargs, out_val=result) if operator in flop_registry else 0
    if operator is aten.convolution:  # of all weights, also where they are in groups or transposed
        return result.shape[0] * result.shape[2:].numel() * args[1].numel(), flops
    return result.numel() if operator in RELU_FAMILY else flops // 2, flops


def measure(module: nn.Module, *shape: int) -> Cost:
    """Cost of ``module``, which is on the meta device, for an input of this shape; InputError where it cannot be told.

    No values are computed and none are stored, so the shape may be as large as it likes.
    """
    try:
        with torch.no_grad(), _Counter() as counter:
            module(torch.empty(shape, device="meta"))
    except MGAError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"complexity: a {type(module).__name__} cannot be counted for {shape}: {reason}") from None
    return Cost(counter.macs, counter.flops)


class Costs(ABC):
    """Parameters and costs of one configuration."""

    @abstractmethod
    def parameters(self, variant: str) -> int:
        """Number of parameters of the parts that the variant runs."""

    @abstractmethod
    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        """Cost of one LR image."""

    def mean_cost(self, variant: str, sizes: Iterable[tuple[int, int, float]], k: int | None = None) -> Cost:
        """Mean over images (width, height, weight)."""
        total, weights = Cost(), 0.0
        for width, height, weight in sizes:
            total += self.cost(variant, width, height, k) * weight
            weights += weight
        return total * (1 / weights)


def _check_size(what: str, least: int, width: int, height: int, cell: int = 1) -> None:
    """InputError for a size of which whole cells have less than ``least`` pixels a side."""
    if min(width, height) // cell * cell < least:
        raise InputError(f"complexity: {what} takes LR images of {least}x{least} pixels or more, got {width}x{height}")


class WholeCosts(Costs):
    """Of a network that is not divided."""

    def __init__(self, config: WholeConfig):
        with torch.device("meta"):
            self.network = WholeNetwork(config).eval()
        self.config = config

    def parameters(self, variant: str = "whole") -> int:
        return sum(p.numel() for p in self.network.parameters())

    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        """Cost of one LR image, which is not cropped; colours are converted for nothing."""
        if variant != "whole":
            raise InputError(f"complexity: {self.config.network} is a whole network, which has no variant {variant!r}")
        _check_size(self.config.network, self.config.definition.minimum_size, width, height)
        return measure(self.network.body, 1, 1 if self.config.colour == "y" else 3, height, width)


class NetworkCosts(Costs):
    """Of a mask-guided network; each part is measured once for each size it is needed at."""

    def __init__(self, config: ModelConfig):
        with torch.device("meta"):
            self.network = MaskGuidedNetwork(config).eval()
        self.config = config
        self._measured: dict[tuple, Cost] = {}

    def parameters(self, variant: str) -> int:
        parts = {"base": ("base",), "masked": ("base", "mask", "refine")}.get(variant, ("base", "refine"))
        return sum(p.numel() for part in parts for p in self.network.get_submodule(part).parameters())

    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        """Cost of one LR image; ``k`` (default: that of the configuration) is clamped to the number of its cells."""
        _check_variant(variant)
        p = self.config.patch_size
        least = max(p, self.config.definition.minimum_size)
        _check_size(f"{self.config.network}, cropped to whole cells of p = {p},", least, width, height, p)
        columns, rows = width // p, height // p
        width, height = columns * p, rows * p
        cost = self._of("base", 3, width, height)
        if variant == "decomposed":
            cost += self._decomposed(width, height)
        elif variant == "all":
            cost += self.patch * (columns * rows)
        elif variant == "masked":
            cost += self._mask(width, height) + self.patch * min(self.config.k if k is None else k, columns * rows)
        return cost

    @cached_property
    def patch(self) -> Cost:
        """Of the Refine-Net for one patch with its halo."""
        side = self.config.patch_size + 2 * self.network.halo
        return self._of("refine", self._channels, side, side)

    @cached_property
    def _refine_macs_per_pixel(self) -> float:
        """Of a feature so large that its border does not count: a, where a feature of side n costs a n^2 + b n + c."""
        halo = 2 * self.network.halo
        sides = (PROBE + halo, 2 * PROBE + halo, 3 * PROBE + halo)
        first, second, third = (self._of("refine", self._channels, side, side).macs for side in sides)
        return (first - 2 * second + third) / (2 * PROBE**2)

    def _decomposed(self, width: int, height: int) -> Cost:
        halo = 2 * self.network.halo
        flops = self._of("refine", self._channels, width + halo, height + halo).flops
        return Cost(self._refine_macs_per_pixel * width * height, flops)

    def _mask(self, width: int, height: int) -> Cost:
        pixels = width * height
        scores = cast(nn.Conv2d, self.network.mask.conv2).weight.numel()
        cost = self._of("mask", self._channels, width, height)
        return cost + Cost(scores * (pixels // self.config.patch_size**2 - pixels))

    @property
    def _channels(self) -> int:
        return self.config.feature_channels

    def _of(self, part: str, channels: int, width: int, height: int) -> Cost:
        key = (part, width, height)
        if key not in self._measured:
            self._measured[key] = measure(self.network.get_submodule(part), 1, channels, height, width)
        return self._measured[key]


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise InputError(f"complexity: variant {variant!r} does not exist; choose one of {', '.join(VARIANTS)}")


class RegionCosts(Costs):
    """Of two whole networks of which one refines regions: of the cells themselves. What lies around regions comes on
    top; how much that is depends on where cells lie in an image."""

    def __init__(self, config: RegionConfig):
        self.config = config
        self.base: WholeCosts = WholeCosts(config.base)
        self.refine: Costs = WholeCosts(config.refine)

    def parameters(self, variant: str) -> int:
        refine = 0 if variant == "base" else self.refine.parameters("whole")
        alone = variant in ("decomposed", "all") and not self.config.mean
        return refine + (0 if alone else self.base.parameters())

    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        """Cost of one LR image; without ``k`` of the configuration's share of the cells."""
        _check_variant(variant)
        everywhere = variant in ("decomposed", "all")
        if everywhere and not self.config.mean:
            return self.refine.cost("whole", width, height)
        cost = self.base.cost("whole", width, height)
        if variant == "base":
            return cost
        cells = math.prod(math.ceil(side / self.config.patch_size) for side in (width, height))
        share = self.config.share if k in (None, self.config.k) else min(1.0, k / cells)
        share = 1.0 if everywhere else share
        return cost + self.refine.cost("whole", width, height) * share


class BlackBoxCosts(RegionCosts):
    """The same where the larger network is not ours; what cannot be counted of that is NaN."""

    def __init__(self, config: BlackBoxConfig):
        self.config, self.base, self.refine = config, WholeCosts(config.base), _Foreign(config)


class _Foreign(Costs):
    """Of a network that is loaded, whose code may need values, which the meta device has not."""

    def __init__(self, config: BlackBoxConfig):
        self.config = config
        self.body = private_copy(WholeNetwork(config.refine).body).to("meta")

    def parameters(self, variant: str = "whole") -> int:
        return self.config.weights

    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        try:
            return measure(self.body, 1, 3, max(height, self.config.smallest), max(width, self.config.smallest))
        except InputError:
            return Cost(math.nan, math.nan)


class ClassCosts(Costs):
    """Of several networks of which a classifier chooses one for each sub-image.

    As Table 2 of the paper corrects ClassSR's own figures: all sub-images of the image are counted, with what they
    overlap, and the classifier too.
    """

    def __init__(self, config: ClassConfig):
        with torch.device("meta"):
            self.network = ClassNetwork(config).eval()
        self.config = config

    def parameters(self, variant: str = "whole") -> int:
        return sum(p.numel() for p in self.network.parameters())

    def cost(self, variant: str, width: int, height: int, k: int | None = None) -> Cost:
        """Cost of one LR image of whose sub-images each class has its share in the configuration."""
        if variant != "whole":
            raise InputError(f"complexity: {self.config.network} with classes has no mask, so no variant {variant!r}")
        count = len(self._checked(width, height))
        return self.of_classes(width, height, [share * count for share in self.config.shares])

    def of_classes(self, width: int, height: int, counts: Sequence[float]) -> Cost:
        """Cost of one LR image with so many sub-images of each class."""
        side = self.config.side
        shape = 1, 3, side(height), side(width)
        cost = measure(self.network.classifier, *shape) * len(self._checked(width, height))
        for branch, count in zip(self.network.alternatives, counts, strict=True):
            cost += measure(branch.get_submodule("body"), *shape) * count
        return cost

    def of_image(self, network: ClassNetwork, image: Tensor) -> Cost:
        """Cost of an LR image (1, 3, H, W) in [0, 1], whose sub-images ``network`` sorts."""
        counts = torch.bincount(network.classes(network.cut(image)), minlength=len(self.config.branches))
        return self.of_classes(image.shape[3], image.shape[2], counts.tolist())

    def _checked(self, width: int, height: int) -> list[tuple[int, int]]:
        _check_size(f"{self.config.network} with classes", self.config.definition.minimum_size, width, height)
        return self.config.sub_images(height, width)


def costs_of(config: Config) -> Costs:
    makers: dict[type, Callable[..., Costs]] = {
        WholeConfig: WholeCosts,
        RegionConfig: RegionCosts,
        BlackBoxConfig: BlackBoxCosts,
        ClassConfig: ClassCosts,
        ModelConfig: NetworkCosts,
    }
    return makers[type(config)](config)
