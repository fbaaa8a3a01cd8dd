"""The plan for every network and device: its modules one after the other, our operators between them."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ...networks import SRNetwork
from ...networks.interface import outputs, padded_size, working_bytes
from ...networks.layers import pad_by_reflection
from ...networks.mask_guided import PATCHES_PER_CALL
from ...ops import gather_patches, image_to_input, output_to_image
from ...system.allocator import keep_memory
from ...system.memory import available_memory
from ..finite import is_finite
from ..plan import PatchPlan, Plan, Planner
from ..precision import describe

KEPT_SHARE = 1.6  # of the memory that the modules need at once, where freed memory is kept: measured, RFDN x4, 540x960


class ModulePlanner(Planner):
    """``network`` on its device and in its dtype; the Refine-Net may have one of its own."""

    takes_place = True

    def __init__(self, network: SRNetwork):
        self.network = network
        parameter = next(network.front.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.refine_dtype = self.dtype if network.back is None else next(network.back.parameters()).dtype
        self.input_dtype = network.input_dtype or self.dtype
        self.trunk = network.trunk()

    @property
    def description(self) -> str:
        return f"{describe(self.dtype, self.refine_dtype)}, in PyTorch"

    def plan(self, height: int, width: int, capacity: int) -> ModulePlan:
        kind = ModulePatches if self.network.pair is None else ModuleRegions
        return kind(self, height, width, capacity)

    def given(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Pixels (1, h, w, 3) -> what the network is given, (1, 3, *size), with their reflection beyond them."""
        return image_to_input(images, *size, self.network.value_range, self.input_dtype)

    def made(self, output: Tensor, size: tuple[int, int], gain: float = 1.0) -> Tensor:
        """The top left of what the network gives, (n, 3, h, w) in 0..1 when multiplied by ``gain``, as pixels
        (n, *size, 3)."""
        return output_to_image(output, *size, gain)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        config, size = self.network.config, self.dtype.itemsize
        channels, p = config.feature_channels, config.patch_size
        pixels = math.prod(padded_size(config, height, width))
        taken, pasted = (p + 2 * self.network.halo) ** 2, 3 * (p * config.scale) ** 2
        batch = min(capacity, PATCHES_PER_CALL.get(self.device.type, PATCHES_PER_CALL["cuda"]))
        # -D takes no more: its halves run one after the other.
        base = working_bytes(config, self.network.working_values, height, width, size)
        refine = size * (batch * taken * config.definition.working_values + 2 * capacity * pasted)
        # The feature and the patches of an image are given up when the next ones take their place.
        kept = pixels * channels + capacity * taken * channels
        made = pixels * 3 * config.scale**2 + capacity * pasted
        return size * kept + max(base, refine) + made * self.pixel.itemsize


class ModulePlan(Plan):
    """What plans of modules share: all but how cells are refined."""

    def __init__(self, planner: ModulePlanner, height: int, width: int, capacity: int):
        super().__init__(planner.network.config, height, width, capacity)
        self.planner, self.network = planner, planner.network
        self.pixel = planner.pixel
        self.feature = torch.empty(0)
        self.finite: Tensor = torch.ones((), dtype=torch.bool, device=planner.device)
        if self.device.type == "cpu":
            if KEPT_SHARE * planner.bytes_needed(height, width, capacity) < available_memory():
                keep_memory(self)

    @property
    def device(self) -> torch.device:
        return self.planner.device

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        config = self.config
        height, width = (max(side, config.definition.minimum_size) for side in image.shape[:2])
        tensor = self.planner.given(image[None].to(self.device), (height, width))
        front = self.planner.trunk if out is None else self.network.front
        coarse, *feature = outputs(front(tensor) if self.place is None else front(tensor, self.place))
        if feature:
            self.feature = self.kept(feature[0])
        if out is not None:
            self._write(coarse, out)

    @abstractmethod
    def kept(self, feature: Tensor) -> Tensor:
        """What is kept of a coarse feature."""

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        return self.network.select(self.feature, k)

    def decomposed(self, out: Tensor) -> None:
        feature = self.feature.to(self.planner.refine_dtype)
        self._write(self.network.decomposed(feature) * self.config.value_range, out)

    def _write(self, output: Tensor, out: Tensor) -> None:
        """Output of the network (1, 3, h, w) -> pixels of the image's part of ``out``."""
        self.finite.logical_and_(is_finite(output))
        target = self.crop(out)
        size = target.shape[0], target.shape[1]
        target.copy_(self.planner.made(output, size, 1 / self.config.value_range)[0])


class ModulePatches(ModulePlan, PatchPlan):
    """Of whole networks, of which no cells are refined, and of those that refine patches."""

    taken = torch.empty(0)

    def kept(self, feature: Tensor) -> Tensor:
        return pad_by_reflection(feature, *self.padded)

    def gather(self, indices: Tensor) -> None:
        self.taken = gather_patches(self.feature, indices, self.config.patch_size, self.network.halo)

    def patches(self) -> Tensor:
        return self.taken

    def load(self, patches: Tensor) -> None:
        self.taken = patches.to(self.device, self.planner.dtype)

    def refined(self) -> Tensor:
        patches = self.network.refine_patches(self.taken.to(self.planner.refine_dtype))
        self.finite.logical_and_(is_finite(patches))  # as bytes NaN would be 0
        return self.planner.made(patches, (patches.shape[2], patches.shape[3])).permute(0, 3, 1, 2)


class ModuleRegions(ModulePlan):
    """By definition the Refine-Net runs over the whole image; cells of its picture are taken."""

    def kept(self, feature: Tensor) -> Tensor:
        return feature  # the image itself, which ends where it ends

    def refine(self, indices: Tensor, out: Tensor) -> None:
        chosen = self.grid_of(indices.to(self.device))  # of an image in tiles they are on the CPU
        if not indices.numel():
            return
        whole = torch.empty_like(out)
        self.decomposed(whole)
        side = self.config.patch_size * self.config.scale
        large = chosen.repeat_interleave(side, 0).repeat_interleave(side, 1)[..., None]
        out.copy_(torch.where(large, whole, out))
