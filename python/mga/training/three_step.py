"""The paper's training (section 3.5) from a recipe to a weights file: D-Net, All-Net, then the MP module alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mga_kernels.checkpoints import load_model, save_model
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.system.files import writable_folder

from ..evaluation.masks import differences, every_patch, overlap
from ..evaluation.metrics import psnr_y
from ..files.claim import claim_folder, content_of, flat, weights_of
from ..files.records import Record
from .flat import VISIBLE_LEVELS, colour_errors, flat_images, flat_loss
from .loop import Ema, pace_of, run_steps
from .objectives import (
    SELECTED_SHARE,
    both_images,
    feature_statistics,
    fold_spread,
    gated_loss,
    image_loss,
    mask_loss,
)
from .packs import Crops, Pair, open_pack, to_tensors
from .recipe import Recipe
from .schedule import Plan, Schedule
from .start import start_as_probability, start_passing_on
from .workers import Workers, device_of

BATCHES_MEASURED = 8  # of which the statistics of the feature and the unit of the mask are taken
FREE = ("out", "device", "save_every", "tensorboard", "licence")  # of a recipe, what may differ when it goes on
PACE_STEPS = 8  # timed to turn minutes into iterations
SHARE_OF_MINUTES = {"dense": 0.4, "all": 0.45, "mask": 0.15, "end-to-end": 1.0, "base": 1.0}


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long all steps of a run may take together; None and None: as long as the recipe says."""

    iterations: int | None = None
    minutes: float | None = None

    def __str__(self) -> str:
        if self.minutes is not None:
            return f"{self.minutes:g} minutes"
        return f"{self.iterations} iterations" if self.iterations is not None else "none"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """ "20000" is iterations, "90m" and "1.5h" are times."""
        unit = {"m": 1.0, "h": 60.0}.get(text[-1:].lower())
        try:
            budget = cls(minutes=float(text[:-1]) * unit) if unit else cls(iterations=int(text))
        except ValueError:
            budget = cls(iterations=0)
        if not (budget.iterations or budget.minutes or 0) > 0:
            raise InputError(f'train: --budget takes iterations ("20000") or a time ("90m", "1.5h"), got {text!r}')
        return budget


class ThreeStep:
    """One run. ``out`` holds a state for each step, ``log.jsonl``, and in the end the weights."""

    def __init__(self, recipe: Recipe, budget: Budget, halves: Path | None = None):
        """``halves``: weights whose Base-Net and Refine-Net are gone on from, and whose MP module may be another."""
        recipe.check()
        self.recipe, self.budget, self.out = recipe, budget, Path(recipe.out)
        self.facts: Record = {}  # that steps found and the weights keep
        self.device = device_of(recipe.device)
        self.workers = Workers(self.device)
        self.plan = Plan(self.out / "iterations.json")
        writable_folder(self.out)
        torch.manual_seed(recipe.seed)
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
        self.held_out = [*open_pack(recipe.validation, recipe.scale)] if recipe.validation else []
        self.crops = Crops(
            [open_pack(path, recipe.scale) for path in recipe.train],
            recipe.scale,
            recipe.crop,
            recipe.batch,
            recipe.seed,
            self.workers.rank,
            self.workers.world,
            self.device,
            recipe.colours,
        )
        remedy = "change config.out (of a study, -o) or remove that folder"
        claim_folder(self.out / "recipe.json", self._claimed(), "train", remedy, self.workers.first)

    def _claimed(self) -> Record:
        """All that the weights depend on: the recipe with the content of its files, the budget, where it begins."""
        recipe = self.recipe
        facts = flat({name: value for name, value in dataclasses.asdict(recipe).items() if name not in FREE})
        facts["train"] = [content_of(path, "train") for path in recipe.train]
        for name in ("validation", "teacher"):
            path = getattr(recipe, name)
            facts[name] = content_of(path, "train") if path else ""
        parts = [self.network] if recipe.initial else [self.network.base, self.network.refine] if self._begun else []
        facts["initial"] = weights_of(*parts) if parts else ""
        return facts | {"budget": str(self.budget)}

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

    def run(self, steps: tuple[str, ...] = ()) -> Path:
        """Run the steps, by default all of the strategy, from where they stopped; returns the weights file.

        A step goes on from those before it, whose states are in the folder, or from ``initial`` or ``halves``.
        """
        asked = steps or self.recipe.steps()
        results = {step: self._step(step) for step in (*self._before(asked[0]), *asked)}
        name = f"{self.recipe.network}-x{self.recipe.scale}" + ("-base" if steps == ("base",) else "")
        target = self.out / f"{name}.safetensors"
        if self.workers.first:
            print(self._coloured(self.network.cpu()), flush=True)
            save_model(target, self.network.cpu(), self.recipe.licence, self._facts(results))
        self.workers.wait()
        return target

    def _coloured(self, network: MaskGuidedNetwork) -> str:
        """What becomes of flat colours, which no PSNR tells; the weights keep it."""
        errors = colour_errors(network)
        self.facts["levels by which flat colours move"] = errors
        text = ", ".join(f"{name} {value:.2f}" for name, value in errors.items())
        remedy = "; more than that is seen, so train longer with colours and flat_weight above 0" * (
            max(errors.values()) > VISIBLE_LEVELS
        )
        return f"125 flat colours move by at most (levels of 255, {VISIBLE_LEVELS} are allowed): {text}{remedy}"

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

    def _facts(self, results: dict[str, str]) -> Record:
        settings = dataclasses.asdict(self.recipe)
        for name in ("out", "device", "save_every", "licence", "tensorboard"):
            del settings[name]
        for name in ("validation", "initial", "teacher"):
            settings[name] = Path(settings[name]).name
        settings["train"] = [Path(path).name for path in settings["train"]]
        return {
            "settings": settings,
            "iterations": self.plan.known(),
            "results": results,
            "losses": logged_losses(self.out),
            **self.facts,
            "finished": time.strftime("%Y-%m-%d", time.gmtime()),
            "torch": torch.__version__,
        }

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
        schedule = self._schedule(step, module, loss)
        ema = Ema(module, schedule.ema_decay) if schedule.ema_decay else None
        log = Log(self.out, step, recipe.tensorboard) if self.workers.first else None

        def validate() -> str:
            with ema.applied_to(module) if ema else contextlib.nullcontext():
                return self._validated(step, spread, unit)

        state = self.out / f"{step}.state"
        run_steps(
            step,
            module,
            schedule,
            state,
            recipe.save_every,
            loss,
            validate,
            ema,
            self.workers,
            log.write if log else None,
        )
        if ema:
            ema.copy_to(module)
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

    def _schedule(self, step: str, module: nn.Module, loss: Callable[[int], Tensor]) -> Schedule:
        """The step's schedule within the budget; a run that goes on keeps the one that it began with."""
        schedule = self.recipe.schedule(step)
        count = self.plan.iterations(step, lambda: self._iterations(step, schedule, module, loss), self.workers)
        return schedule if count == schedule.iterations else schedule.scaled(count)

    def _iterations(self, step: str, schedule: Schedule, module: nn.Module, loss: Callable[[int], Tensor]) -> int:
        if self.budget.iterations is not None:
            total = sum(self.recipe.schedule(name).iterations for name in self.recipe.steps())
            return max(1, round(self.budget.iterations * schedule.iterations / total))
        if self.budget.minutes is None:
            return schedule.iterations
        pace = self.workers.mean(pace_of(module, loss, PACE_STEPS, schedule.optimiser))
        return max(1, min(schedule.iterations, round(self.budget.minutes * 60 * SHARE_OF_MINUTES[step] / pace)))

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
        scores = {"coarse dB": self._psnr(coarse, pair[0])}
        if step == "base":
            return scores
        final = network.decomposed(feature) if step == "dense" else every_patch(network, feature)
        scores["dense dB" if step == "dense" else "all dB"] = self._psnr(final, pair[0])
        if step == "mask":
            target = (differences(network, coarse, final) / unit).clamp(max=1)[0]
            mask = network.mask(feature / spread.to(feature))[0]
            k = max(1, round(SELECTED_SHARE * target.numel()))
            found = overlap(mask.float().cpu().numpy(), target.cpu().numpy(), k)
            scores |= {"mask l1": float((mask - target).abs().mean()), "top 40 % overlap": found}
        return scores

    def _psnr(self, image: Tensor, hr: np.ndarray) -> float:
        height, width = hr.shape[:2]
        pixels = image[0, :, :height, :width].float().clamp(0, 1).mul(255).round().byte()
        return psnr_y(pixels.permute(1, 2, 0).cpu().numpy(), hr, self.recipe.scale)


def logged_losses(out: Path) -> dict[str, list[float]]:
    """The log of a run in short: of each step the mean loss of each tenth of what was logged."""
    path = out / Log.FILE
    losses: dict[str, dict[int, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a run that was killed left half a line, and repeats others
            entry = json.loads(line)
            losses.setdefault(entry["step"], {})[entry["iteration"]] = entry["loss"]
    return {
        step: [round(float(np.mean(part)), 5) for part in np.array_split([*values.values()], min(10, len(values)))]
        for step, values in losses.items()
    }


class Log:
    """``log.jsonl`` in the folder of the run, a line each EVERY steps, and TensorBoard's files where asked for."""

    FILE, EVERY = "log.jsonl", 100

    def __init__(self, out: Path, step: str, tensorboard: bool):
        self.path, self.step, self.board = out / self.FILE, step, None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError("train: tensorboard = true needs the package tensorboard; install it") from None
            self.board = SummaryWriter(str(out / "tensorboard"))

    def write(self, number: int, values: dict[str, float]) -> None:
        if number % self.EVERY:
            return
        with self.path.open("a+") as stream:
            stream.seek(max(0, stream.tell() - 1))
            if stream.read() not in ("", "\n"):  # a run that was killed left half a line
                stream.write("\n")
            stream.write(json.dumps({"step": self.step, "iteration": number, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{self.step}/{name}", value, number)
            self.board.flush()
