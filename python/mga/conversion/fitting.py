"""Training the halves of a published network for what they are to do, in the time that there is.

split    "base"    the Base-Net's own upsampler and fusion: the coarse image to the teacher's; its blocks stay; a light
                   upsampler is first fitted by least squares
         "joint"   both halves: the coarse image and the Refine-Net over all patches to the teacher's image
         "mask"    the MP module, to the difference of the two (step 3 of section 3.5)
extend   "refine"  the Refine-Net over all patches to the HR image, by squared differences or their logarithm
                   (``decibels``), for it is to gain PSNR; the Base-Net, the published network, stays
         "mask"    as above

A crop is to all of them an image of its own, the teacher included, so that all see the same border. The minutes are
shared as SHARES says: before each step some iterations are timed, and as many are planned as its share has room for.
The plan is kept with the state of each step, and a conversion that was stopped goes on as if it never had been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mga_kernels.networks import MaskGuidedNetwork, WholeNetwork
from mga_kernels.runtimes.precision import fast_bf16

from ..evaluation.masks import every_patch
from ..evaluation.metrics import LUMA
from ..training.loop import Ema, pace_of, run_steps
from ..training.objectives import feature_statistics, fold_spread, image_loss, mask_loss
from ..training.packs import Crops, Pair, to_tensors
from ..training.schedule import Schedule
from .light import fit_last
from .material import Material
from .settings import SHARES
from .teacher import tail_parameters

PACE_STEPS = 3  # timed to turn minutes into iterations
QUICK = 40  # iterations of a mask that is fitted to what a stopped conversion has got to
STATISTICS = 4  # batches of which the feature's deviation and the unit of the mask are taken
FITTED = 16  # batches to which a light upsampler is fitted by least squares
COLOURS = 0.1  # of the squared difference of RGB in ``decibels``, which is that of luma,
LEAST = 0.1  # and so many squared levels, below which nothing is to be gained
SEEN = 96  # LR pixels a side of what is looked at of a held-out image


class Fitting:
    """One conversion."""

    early = "fitting the mask, then writing what there is"

    def __init__(
        self,
        teacher: WholeNetwork | None,
        network: MaskGuidedNetwork,
        material: Material,
        iterations: dict[str, int] | None = None,
    ):
        """Without a ``teacher`` the HR images of the pairs are what is wanted. ``iterations`` replaces the minutes."""
        self.material, self.training, self.folder = material, material.training, material.folder
        self.teacher, self.network, self.given = teacher, network, iterations or {}
        self.shares = SHARES["extend" if teacher is None else "split"]
        self.results: dict[str, str] = {}
        self.mask_unit = 0.0  # luma difference that is mask value 1, once it is known
        self.gain: float | None = None  # dB of the refined over the coarse image of the held-out images
        self.finished = False
        for part in filter(None, (network, teacher)):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Values up to 255 would lose half a level; images of 0..1 are a residual or rounded by far less.
        self.bf16 = fast_bf16() and network.value_range == 1
        scale, p = network.config.scale if teacher is None else 1, network.config.patch_size
        crop = self.training.crop // p * p
        self.crops = Crops(material.train, scale, crop, self.training.batch, self.training.seed)
        self.held_out = [self._target(*to_tensors([_middle(pair, scale, p)])) for pair in material.held_out]
        self.plan = material.claim()

    @torch.no_grad()
    def _target(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        lr = lr.contiguous(memory_format=torch.channels_last)
        return lr, hr if self.teacher is None else self.teacher(lr).clamp(0, 1)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        return self._target(*self.crops(number))

    def run(self) -> None:
        """All steps, from where they stopped. The network is in evaluation mode afterwards, even if interrupted."""
        if getattr(self.network.base, "light", None) is not None:
            light, config = cast(nn.Conv2d, self.network.base.light), self.network.config
            made = lambda lr: self.network.coarse(lr)[0]  # noqa: E731
            fit_last(light, made, config.scale, config.value_range, map(self._batch, range(FITTED)))
        for step in self.shares:
            self._step(step, self.folder / f"{step}.state")
        self.finished = True

    def finish_early(self) -> None:
        """A mask for the halves as they are, in QUICK iterations, of which one that goes on keeps nothing."""
        if "mask" in self.results:
            return
        state = self.folder / "quick.state"
        state.unlink(missing_ok=True)
        try:
            self._step("mask", state, QUICK)
        finally:
            state.unlink(missing_ok=True)

    def _step(self, step: str, state: Path, iterations: int | None = None) -> None:
        network = self.network.eval().requires_grad_(False)
        module: nn.Module = {"base": network.base, "refine": network.refine, "mask": network.mask}.get(step, network)
        trained = [*module.parameters()]
        if step == "base":
            trained = tail_parameters(network)
        elif step == "refine" and (extension := network.config.definition.part("extension")) is not None:
            trained = extension.trained(network.refine)
        mask = {id(parameter) for parameter in network.mask.parameters()} if step == "joint" else set()
        for parameter in trained:
            parameter.requires_grad_(id(parameter) not in mask)
        spread, unit = torch.ones(()), 1.0
        if step == "mask":
            batches = (self.crops.make(number)[0] for number in range(STATISTICS))
            spread, unit = feature_statistics(network, batches, self.training.target_quantile)
            self.mask_unit = unit
        loss = self._loss(step, spread, unit)
        schedule = self._schedule(step, module, loss, iterations)
        ema = Ema(module, self.training.ema_decay)
        every = max(1, min(200, schedule.iterations // 8))

        def validate() -> str:
            with ema.applied_to(module):
                return self._validated(step, spread, unit)

        try:
            run_steps(step, module, schedule, state, every, loss, validate, ema)
            self.results[step] = ""  # its steps are done
        finally:
            ema.copy_to(module)
            result = self._validated(step, spread, unit)
            if step in self.results:
                self.results[step] = result
            if step == "mask":
                fold_spread(network.mask, spread)
            network.eval().requires_grad_(False)

    def _loss(self, step: str, spread: Tensor, unit: float) -> Callable[[int], Tensor]:
        network = self.network

        def loss(number: int) -> Tensor:
            if step == "mask":
                return mask_loss(network, self._lr(number), unit, spread)
            lr, wanted = self._batch(number)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                return image_error(lr, wanted)

        def image_error(lr: Tensor, wanted: Tensor) -> Tensor:
            if step == "base":
                return image_loss(network, lr, wanted, "base", 1.0)
            if step == "joint":
                return image_loss(network, lr, wanted, "all", 1.0)
            with torch.no_grad():
                feature = network.coarse(lr)[1]
            return (decibels if self.training.decibels else squares)(every_patch(network, feature), wanted)

        return loss

    def _lr(self, number: int) -> Tensor:
        return self.crops(number)[0].contiguous(memory_format=torch.channels_last)

    def _schedule(
        self, step: str, module: nn.Module, loss: Callable[[int], Tensor], iterations: int | None
    ) -> Schedule:
        """As many iterations as were planned when the step began."""
        count = iterations or self.plan.iterations(
            step, lambda: self.given.get(step) or self._iterations(step, module, loss)
        )
        warmup, peak = max(1, min(100, count // 10)), self.training.rate(step)
        return Schedule(count, 1, warmup, 0.1 * peak, peak, 0.01 * peak)

    def planned(self) -> dict[str, int]:
        """Iterations of the steps that were begun."""
        return self.plan.known()

    def _iterations(self, step: str, module: nn.Module, loss: Callable[[int], Tensor]) -> int:
        pace = pace_of(module, loss, PACE_STEPS)
        return max(1, round(60 * self.material.minutes * self.shares[step] / pace))

    @torch.no_grad()
    def _validated(self, step: str, spread: Tensor, unit: float) -> str:
        """A line about the images that are not trained on, against what is wanted of them."""
        if not self.held_out:
            return "no held-out images"
        if step == "mask":
            losses = [float(mask_loss(self.network, lr, unit, spread)) for lr, _ in self.held_out]
            return f"held-out mask l1 {sum(losses) / len(losses):.4f}"
        scores = [self._scores(lr, wanted) for lr, wanted in self.held_out]
        coarse, refined = (sum(values) / len(values) for values in zip(*scores, strict=True))
        self.gain = refined - coarse
        return f"held-out coarse {coarse:.3f} dB, refined {refined:.3f} dB"

    def _scores(self, lr: Tensor, wanted: Tensor) -> tuple[float, ...]:
        coarse, feature = self.network.coarse(lr)
        return tuple(_psnr(image, wanted) for image in (coarse, every_patch(self.network, feature)))


def squares(image: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference in levels of 255."""
    return (255 * (image.float() - wanted)).square().mean()


def decibels(image: Tensor, wanted: Tensor) -> Tensor:
    """10 log10 of the squared difference of each crop, of luma and a little of all colours; the mean over the crops.

    By squares a crop full of fine detail, which no network restores, drowns what others have to teach.
    """
    error = 255 * (image.float() - wanted)
    luma = torch.einsum("bchw,c->bhw", error, error.new_tensor(LUMA))
    each = luma.square().mean(dim=(1, 2)) + COLOURS * error.square().mean(dim=(1, 2, 3))
    return 10 * (each + LEAST).log10().mean()


def _psnr(image: Tensor, wanted: Tensor) -> float:
    error = float((image.float().clamp(0, 1) - wanted).square().mean())
    return -10 * math.log10(max(error, 1e-10))


def _middle(pair: Pair, scale: int, patch_size: int) -> Pair:
    """A part of whole cells of a held-out image."""
    sides = [min(SEEN, side) // patch_size * patch_size for side in pair[1].shape[:2]]
    starts = [(whole - side) // 2 for whole, side in zip(pair[1].shape[:2], sides, strict=True)]
    hr, lr = (
        tuple(slice(factor * start, factor * (start + side)) for start, side in zip(starts, sides, strict=True))
        for factor in (scale, 1)
    )
    return pair[0][hr], pair[1][lr]
