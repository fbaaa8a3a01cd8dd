"""What the engine stage of ``gpu.py`` runs: networks with weights, images, and how much of them is refined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import gpu_floors
import numpy as np
import torch
from contenders import lively, make_networks
from images import gmacs, test_image
from torch import Tensor

from mga.complexity.counting import costs_of
from mga_kernels.checkpoints.native import load_native
from mga_kernels.networks import MaskGuidedNetwork, RegionConfig, RegionNetwork, WholeConfig, WholeNetwork

SIZES = {"1080p": (480, 270), "4K": (960, 540), "tiny": (32, 24)}  # of the LR image at x4
SCALE = 4
WHOLE = ("span", "compact", "rrdbnet")  # networks without a mask, of which others publish weights
SHIPPED = gpu_floors.SHIPPED  # with its weights, and a threshold as photographs have it, of which it refines a tenth
REGIONS = {SHIPPED: SHIPPED, **{f"{name}-regions": name for name in gpu_floors.REFINING if name not in SHIPPED}}
SHARE, OF_SHIPPED = 0.3, 0.1  # of the cells that are refined in regions


@dataclass(frozen=True)
class Case:
    network: MaskGuidedNetwork | WholeNetwork | RegionNetwork
    image: Tensor  # uint8 (H, W, 3) on the host
    k: int
    device: torch.device
    dtype: torch.dtype
    threshold: float | None = None  # of the mask's values, above which cells are refined: of the k largest

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def work(self, refined: int) -> dict[str, float]:
        """GMACs of what contenders run, for so many refined cells."""
        height, width = self.size
        if isinstance(self.network, MaskGuidedNetwork):
            return gmacs(self.network.config, width, height, refined)
        with torch.inference_mode(False):
            costs = costs_of(self.network.config)
            if isinstance(self.network, WholeNetwork):
                return {"W": costs.cost("whole", width, height).macs / 1e9}
            both = {"M": ("masked", width, height, refined), "D": ("decomposed", width, height)}
            return {key: costs.cost(*given).macs / 1e9 for key, given in both.items()}


def whole_network(name: str, image: np.ndarray) -> WholeNetwork:
    """A published architecture with random weights, whose pictures have the contrast of photographs."""
    torch.manual_seed(0)
    network = WholeNetwork(WholeConfig(name, SCALE, gpu_floors.WHOLE[name])).eval().requires_grad_(False)
    make_lively(network, image)
    return network


def region_network(name: str, image: np.ndarray) -> RegionNetwork:
    """The same of two networks, of which one refines regions of what the other makes; the shipped one as it is."""
    if name == SHIPPED:
        return cast(RegionNetwork, load_native(name).requires_grad_(False))
    torch.manual_seed(0)
    config = RegionConfig(
        gpu_floors.BASE,
        WholeConfig(name, SCALE, gpu_floors.WHOLE[name]),
        gpu_floors.CELL,
        gpu_floors.HALO,
    )
    network = RegionNetwork(config).eval().requires_grad_(False)
    for part in (network.base, network.refine):
        make_lively(part, image)
    return network


def make_lively(network: WholeNetwork, image: np.ndarray) -> None:
    part = torch.from_numpy(np.ascontiguousarray(image[:48, :48])).permute(2, 0, 1)[None] / 255
    lively(network.body, lambda: network.unclamped(part), 1.0)


def make_case(name: str, size: str, kind: str) -> Case:
    width, height = SIZES[size]
    image = test_image(width, height)
    # Half precision is slow on a CPU, and no question.
    device, dtype = torch.device(kind), torch.float16 if kind == "cuda" else torch.float32
    if name in WHOLE:
        return Case(whole_network(name, image), torch.from_numpy(image), 0, device, dtype)
    if name in REGIONS:
        regions = region_network(REGIONS[name], image)
        cells = math.prod(-(-side // regions.config.patch_size) for side in (height, width))
        if name == SHIPPED:
            return Case(regions, torch.from_numpy(image), cells, device, dtype, threshold_of(regions, image, cells))
        return Case(regions, torch.from_numpy(image), round(SHARE * cells), device, dtype)
    network, _ = make_networks(name, SCALE, image)
    config = network.config
    k = min(config.k, math.prod(-(-side // config.patch_size) for side in (height, width)))
    return Case(network, torch.from_numpy(image), k, device, dtype)


@torch.no_grad()
def threshold_of(network: RegionNetwork, image: np.ndarray, cells: int) -> float:
    """What OF_SHIPPED of the cells have more of: the image is softer than photographs, for which qualities are made."""
    mask = network.select(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, cells)[0].flatten()
    most = max(1, round(OF_SHIPPED * cells))
    return float(mask.sort(descending=True).values[most - 1 : most + 1].mean())
