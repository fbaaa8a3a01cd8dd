"""The paper's training (section 3.5) from a recipe to a weights file: D-Net, All-Net, then the MP module alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from mga_kernels.checkpoints import load_model
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork

from ..evaluation.masks import differences, every_patch, overlap
from ..files.claim import content_of, weights_of
from ..files.records import Record
from .flat import flat_images, flat_loss
from .objectives import (
    SELECTED_SHARE,
    both_images,
    feature_statistics,
    fold_spread,
    gated_loss,
    image_loss,
    mask_loss,
)
from .packs import Pair, to_tensors
from .recipe import Recipe
from .run import Budget, Run
from .start import start_as_probability, start_passing_on

BATCHES_MEASURED = 8  # of which the statistics of the feature and the unit of the mask are taken


class ThreeStep(Run[Recipe]):
    """The three steps, or those of another strategy of Table 4."""

    shares = MappingProxyType({"dense": 0.4, "all": 0.45, "mask": 0.15, "end-to-end": 1.0, "base": 1.0})
    network: MaskGuidedNetwork

    def __init__(self, recipe: Recipe, budget: Budget, halves: Path | None = None):
        """``halves``: weights whose Base-Net and Refine-Net are gone on from, and whose MP module may be another."""
        super().__init__(recipe, budget)
        self.network = MaskGuidedNetwork(recipe.model_config())
        if recipe.start == "identity":
            start_passing_on(self.network)
        self._begun = bool(recipe.initial or halves)  # from trained weights
        if recipe.initial:
            self._take(recipe.initial)
        if halves is not None:
            weights = load_model(halves)
            self.network.base.load_state_dict(weights.base.state_dict())
            self.network.refine.load_state_dict(weights.refine.state_dict())
        self.teacher = self._teacher(recipe.teacher) if recipe.teacher else None
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.crops = self.crops_of(self.packs(), recipe.batch)
        self.claim()

    def _claimed(self) -> Record:
        """Also where it begins."""
        recipe, facts = self.recipe, super()._claimed()
        facts["teacher"] = content_of(recipe.teacher, "train") if recipe.teacher else ""
        parts = [self.network] if recipe.initial else [self.network.base, self.network.refine] if self._begun else []
        facts["initial"] = weights_of(*parts) if parts else ""
        return facts

    def _teacher(self, path: str) -> MaskGuidedNetwork:
        teacher = load_model(path)
        if teacher.config.scale != self.recipe.scale:
            raise InputError(
                f"train: the teacher {path} is of scale {teacher.config.scale}, the configuration has scale "
                f"{self.recipe.scale}; name one of that scale"
            )
        return teacher.to(self.device)

    def _take(self, path: str) -> None:
        try:
            self.network.load_state_dict(load_model(path).state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"train: {path} is another model than the configuration: {reason}") from None

    def _run(self, steps: tuple[str, ...]) -> Path:
        """By default all steps of the strategy.

        A step goes on from those before it, whose states are in the folder, or from ``initial`` or ``halves``.
        """
        asked = steps or self.recipe.steps()
        results = {step: self._step(step) for step in (*self._before(asked[0]), *asked)}
        return self.saved(results, "-base" if steps == ("base",) else "")

    def _before(self, step: str) -> list[str]:
        """The steps that this one goes on from."""
        order = self.recipe.steps()
        earlier = order[: order.index(step)] if step in order else ()
        there = [name for name in earlier if (self.out / f"{name}.state").exists()]
        if len(there) < len(earlier) and not self._begun:
            missing = next(name for name in earlier if name not in there)
            raise InputError(
                f"train: step {step} goes on from step {missing}, of which {self.out} holds no state; run that step "
                "first, or name weights to start from in config.initial"
            )
        return there

    def _step(self, step: str) -> str:
        network, recipe = self.network, self.recipe
        module: nn.Module = {"mask": network.mask, "base": network.base}.get(step, network)
        network.eval().requires_grad_(False)
        module.train().requires_grad_(True)
        if step in ("dense", "all"):
            network.mask.requires_grad_(False)
        spread, unit = self._measured() if step == "mask" else (torch.ones(()), 1.0)
        if step == "mask" and recipe.strategy != "unsupervised-mask":
            self.facts["mask_unit"] = unit  # luma difference that is mask value 1
        if step in ("mask", "end-to-end"):
            start_as_probability(network.mask)
        loss = self._loss(step, spread, unit)
        self.train(step, module, loss, lambda: self._validated(step, spread, unit))
        result = self._validated(step, spread, unit)
        if step == "mask":
            fold_spread(network.mask, spread)
        network.eval().requires_grad_(False)
        return result

    def _loss(self, step: str, spread: Tensor, unit: float) -> Callable[[int], Tensor]:
        recipe, network = self.recipe, self.network
        gated = step == "end-to-end" or (step == "mask" and recipe.strategy == "unsupervised-mask")

        def loss(number: int) -> Tensor:
            lr, hr = self.crops(number)
            lr = lr.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
                if gated:
                    return gated_loss(network, lr, hr, recipe.coarse_weight, spread.to(lr))
                if step == "mask":
                    return mask_loss(network, lr, unit, spread.to(lr))
                coarse_hr, hr = self._taught(number, lr, hr, step)
                total = image_loss(network, lr, hr, step, recipe.coarse_weight, coarse_hr)
                if recipe.flat_weight:
                    flat = flat_images(recipe.seed, number, self.device)
                    total = total + recipe.flat_weight * flat_loss(network, flat, step, recipe.coarse_weight)
                return total

        return loss

    @torch.no_grad()
    def _taught(self, number: int, lr: Tensor, hr: Tensor, step: str) -> tuple[Tensor, Tensor]:
        """What the coarse and the final image should be: HR, or the teacher's images of crops in their own colours."""
        if self.teacher is None:
            return hr, hr
        own = self.crops.in_own_colours(number).to(hr.device)[:, None, None, None]
        coarse, final = (torch.where(own, image.float(), hr) for image in both_images(self.teacher, lr, step))
        return coarse, final

    def _measured(self) -> tuple[Tensor, float]:
        batches = (self.crops.make(number, whole=True)[0] for number in range(BATCHES_MEASURED))
        return feature_statistics(self.network, batches, self.recipe.target_quantile)

    @torch.no_grad()
    def _validated(self, step: str, spread: Tensor, unit: float) -> str:
        """A line about the images that are not trained on."""
        if not self.held_out or not self.workers.first:
            return "no validation images"
        scores = [self._scores(pair, step, spread, unit) for pair in self.held_out]
        means = {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
        return ", ".join(f"{name} {value:.4f}" for name, value in means.items())

    def _scores(self, pair: Pair, step: str, spread: Tensor, unit: float) -> dict[str, float]:
        network = self.network
        lr, _ = to_tensors([pair])
        coarse, feature = network.coarse(lr.to(self.device))
        scores = {"coarse dB": self.psnr(coarse, pair[0])}
        if step == "base":
            return scores
        final = network.decomposed(feature) if step == "dense" else every_patch(network, feature)
        scores["dense dB" if step == "dense" else "all dB"] = self.psnr(final, pair[0])
        if step == "mask":
            target = (differences(network, coarse, final) / unit).clamp(max=1)[0]
            mask = network.mask(feature / spread.to(feature))[0]
            k = max(1, round(SELECTED_SHARE * target.numel()))
            found = overlap(mask.float().cpu().numpy(), target.cpu().numpy(), k)
            scores |= {"mask l1": float((mask - target).abs().mean()), "top 40 % overlap": found}
        return scores
