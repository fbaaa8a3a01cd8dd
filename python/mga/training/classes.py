"""ClassSR's training (Kong et al., CVPR 2021) from a recipe to a weights file: a branch for each class, the classifier.

The sub-images of the packs are ranked by how badly bicubic interpolation restores them and divided into as many equal
parts as there are classes. Each branch is trained on its part alone, the cheapest on the easiest. Then the classifier
learns, from crops of all packs and while the branches stay as they are, to weight the images of the branches so that
their sum is near to HR, to be sure of one class, and to send as many crops to each class. ClassSR may train all of it
together once more at the end, which this does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from mga_kernels.errors import InputError
from mga_kernels.networks import ClassNetwork
from mga_kernels.networks.classes import starts

from ..evaluation.resize import imresize
from .flat import colours_moved, flat_images
from .objectives import l1
from .packs import Crops, Pair, to_tensors
from .recipe import ClassRecipe
from .run import Budget, Run
from .start import pass_on


class Classes(Run[ClassRecipe]):
    """Of the steps, ``branches`` is all of the branches."""

    network: ClassNetwork

    def __init__(self, recipe: ClassRecipe, budget: Budget):
        super().__init__(recipe, budget)
        steps = recipe.steps()[:-1]
        self.shares = MappingProxyType({**dict.fromkeys(steps, 0.8 / len(steps)), "classifier": 0.2})
        self.network = ClassNetwork(recipe.model_config())
        if recipe.start == "identity":
            bodies = (branch.get_submodule("body") for branch in self.network.alternatives)
            pass_on(self.network.config.branches[0].definition, *bodies)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        packs = self.packs()
        self.claim()
        ranked = by_difficulty([pair for pack in packs for pair in pack], recipe.crop, len(steps))
        self.crops = {step: self.crops_of([part], recipe.batch) for step, part in zip(steps, ranked, strict=True)}
        self.crops["classifier"] = self.crops_of(packs, recipe.class_batch)

    def _run(self, steps: tuple[str, ...]) -> Path:
        """The classifier goes on from the branches, whose states are in the folder."""
        *branches, last = self.recipe.steps()
        named = {"branches": tuple(branches), last: (last,)}
        if unknown := [step for step in steps if step not in named]:
            raise InputError(f"train: classes have no step {unknown[0]}; choose one of {', '.join(named)}")
        asked = [one for step in steps or named for one in named[step]]
        missing = [step for step in branches if step not in asked and not (self.out / f"{step}.state").exists()]
        if missing:
            raise InputError(
                f"train: step {last} goes on from {missing[0]}, of which {self.out} holds no state; run the step "
                "branches first"
            )
        return self.saved({step: self._step(step) for step in self.recipe.steps() if step in (*branches, *asked)})

    def _step(self, step: str) -> str:
        network = self.network.eval().requires_grad_(False)
        last = step == "classifier"
        module = network.classifier if last else self._branch(step)
        module.train().requires_grad_(True)
        loss = self._classifier_loss if last else self._branch_loss(module, self.crops[step], step)
        self.train(step, module, loss, lambda: self._validated(step))
        network.eval().requires_grad_(False)
        if last:
            self._keep_shares()
        return self._validated(step)

    def _branch(self, step: str) -> nn.Module:
        return self.network.alternatives[self.recipe.steps().index(step)]

    def _branch_loss(self, branch: nn.Module, crops: Crops, step: str) -> Callable[[int], Tensor]:
        recipe = self.recipe

        def loss(number: int) -> Tensor:
            lr, hr = crops(number)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
                total = l1(branch(lr.contiguous(memory_format=torch.channels_last)), hr)
                if recipe.flat_weight:
                    flat = flat_images(recipe.seed, number, self.device)
                    total = total + recipe.flat_weight * colours_moved(branch(flat), flat)
                return total

        return loss

    def _classifier_loss(self, number: int) -> Tensor:
        lr, hr = self.crops["classifier"](number)
        return class_loss(self.network, lr.contiguous(memory_format=torch.channels_last), hr, self.recipe)

    @torch.no_grad()
    def _validated(self, step: str) -> str:
        """A line about the images that are not trained on."""
        if not self.held_out or not self.workers.first:
            return "no validation images"
        module = self.network if step == "classifier" else self._branch(step)
        scores = [self.psnr(module(to_tensors([pair])[0].to(self.device)), pair[0]) for pair in self.held_out]
        shares = f", shares of the classes {_text(self._shares())}" if step == "classifier" else ""
        return f"dB {np.mean(scores):.4f}{shares}"

    @torch.no_grad()
    def _shares(self) -> tuple[float, ...]:
        """Of the sub-images of the held-out images, those of each class."""
        network = self.network
        found = [network.classes(network.cut(to_tensors([pair])[0].to(self.device))) for pair in self.held_out]
        counts = torch.bincount(torch.cat(found), minlength=len(network.alternatives))
        return tuple((counts / counts.sum()).tolist())

    def _keep_shares(self) -> None:
        if self.held_out:
            self.network.config = dataclasses.replace(self.network.config, shares=self._shares())


def _text(shares: tuple[float, ...]) -> str:
    return " ".join(f"{share:.2f}" for share in shares)


def class_loss(network: ClassNetwork, lr: Tensor, hr: Tensor, weights: ClassRecipe) -> Tensor:
    """ClassSR's loss of the classifier, whose branches are not trained, of crops (B, 3, h, w).

    With P (B, M) the probability of each class and x_m the images of its branch, it is the weighted sum of the l1
    error of the sum over m of P_m x_m; of the class loss, - sum of |P_i - P_j| over the pairs i < j, mean over the
    crops; and of the average loss, the sum over m of |sum over the crops of P_m - B / M|.
    """
    probability = network.classifier(lr).softmax(dim=1)
    with torch.no_grad():
        images = torch.stack([branch(lr) for branch in network.alternatives], dim=1)
    count = probability.shape[1]
    image = (probability[:, :, None, None, None] * images).sum(dim=1)
    pairs = [(i, j) for j in range(count) for i in range(j)]
    clear = -torch.stack([(probability[:, i] - probability[:, j]).abs() for i, j in pairs]).sum(dim=0).mean()
    even = (probability.sum(dim=0) - len(lr) / count).abs().sum()
    return weights.image_weight * l1(image, hr) + weights.class_weight * clear + weights.average_weight * even


def by_difficulty(pairs: list[Pair], side: int, count: int) -> list[list[Pair]]:
    """Sub-images of ``side`` LR pixels, half a side apart, in ``count`` equal parts, the easiest first.

    They are ranked by the mean squared error of bicubic interpolation of the image that they lie in.
    """
    found: list[tuple[float, Pair]] = []
    for hr, lr in pairs:
        scale = hr.shape[0] // lr.shape[0]
        error = np.square(imresize(lr, scale).astype(np.float32) - hr)
        rows, columns = (starts(length, side, max(1, side // 2)) for length in lr.shape[:2])
        for y, x in ((y, x) for y in rows for x in columns):
            small = slice(y, y + side), slice(x, x + side)
            large = slice(y * scale, (y + side) * scale), slice(x * scale, (x + side) * scale)
            found.append((float(error[large].mean()), (hr[large], lr[small])))
    if len(found) < count:
        raise InputError(f"train: the packs hold {len(found)} sub-images of {side} pixels, too few for {count} classes")
    order = sorted(range(len(found)), key=lambda i: found[i][0])  # stable, so that a run that goes on ranks alike
    return [[found[i][1] for i in part] for part in np.array_split(order, count)]
