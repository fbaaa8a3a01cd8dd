"""What the trainings of all strategies share: a folder of states, a log, schedules within a budget, the weights."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mga_kernels.checkpoints import save_model
from mga_kernels.errors import InputError
from mga_kernels.networks import SRNetwork
from mga_kernels.system.files import writable_folder

from ..evaluation.metrics import psnr_y
from ..files.claim import claim_folder, content_of, flat, held_folder
from ..files.records import Record
from .flat import VISIBLE_LEVELS, colour_errors
from .loop import Ema, pace_of, run_steps
from .packs import Crops, Pair, open_pack
from .recipe import Common
from .schedule import Plan, Schedule
from .workers import Workers, device_of

FREE = ("out", "device", "save_every", "tensorboard", "licence")  # of a recipe, what may differ when it goes on
PACE_STEPS = 8  # timed to turn minutes into iterations

R = TypeVar("R", bound=Common)


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


class Run(ABC, Generic[R]):
    """A training by the recipe ``R``. ``out`` holds a state for each step, ``log.jsonl``, and in the end the weights.

    ``shares``: of the minutes of a budget, by step.
    """

    shares: Mapping[str, float]
    network: SRNetwork

    def __init__(self, recipe: R, budget: Budget):
        recipe.check()
        self.recipe, self.budget, self.out = recipe, budget, Path(recipe.out)
        self.facts: Record = {}  # that steps found and the weights keep
        self.device = device_of(recipe.device)
        self.workers = Workers(self.device)
        self.plan = Plan(self.out / "iterations.json")
        writable_folder(self.out)
        torch.manual_seed(recipe.seed)
        self.held_out = [*open_pack(recipe.validation, recipe.scale)] if recipe.validation else []

    def run(self, steps: tuple[str, ...] = ()) -> Path:
        """Run the steps, by default all, from where they stopped; returns the weights file.

        InputError where another run is training in the folder: two would write over each other's states.
        """
        if not self.workers.first:
            return self._run(steps)
        remedy = "wait until it has ended, or change config.out (of a study, -o)"
        with held_folder(self.out, f"train: another run is training in {self.out}; {remedy}"):
            return self._run(steps)

    @abstractmethod
    def _run(self, steps: tuple[str, ...]) -> Path:
        """``run``, alone in the folder."""

    def packs(self) -> list[list[Pair]]:
        return [open_pack(path, self.recipe.scale) for path in self.recipe.train]

    def crops_of(self, groups: Sequence[Sequence[Pair]], batch: int) -> Crops:
        """Batches of crops of these pairs, of which this process takes its part."""
        recipe, workers = self.recipe, self.workers
        return Crops(
            groups,
            recipe.scale,
            recipe.crop,
            batch,
            recipe.seed,
            workers.rank,
            workers.world,
            self.device,
            recipe.colours,
        )

    def claim(self) -> None:
        """Note what the weights depend on; InputError where the folder has a run that depends on something else."""
        remedy = "change config.out (of a study, -o) or remove that folder"
        claim_folder(self.out / "recipe.json", self._claimed(), "train", remedy, self.workers.first)

    def _claimed(self) -> Record:
        """All that the weights depend on: the recipe with the content of its files, and the budget."""
        recipe = self.recipe
        facts = flat({name: value for name, value in dataclasses.asdict(recipe).items() if name not in FREE})
        facts["train"] = [content_of(path, "train") for path in recipe.train]
        facts["validation"] = content_of(recipe.validation, "train") if recipe.validation else ""
        return facts | {"budget": str(self.budget)}

    def saved(self, results: dict[str, str], end: str = "") -> Path:
        """The weights file, which the first process writes."""
        target = self.out / f"{self.recipe.network}-x{self.recipe.scale}{end}.safetensors"
        if self.workers.first:
            print(self._coloured(self.network.cpu()), flush=True)
            save_model(target, self.network.cpu(), self.recipe.licence, self._facts(results))
        self.workers.wait()
        return target

    def _coloured(self, network: SRNetwork) -> str:
        """What becomes of flat colours, which no PSNR tells; the weights keep it."""
        errors = colour_errors(network)
        self.facts["levels by which flat colours move"] = errors
        text = ", ".join(f"{name} {value:.2f}" for name, value in errors.items())
        remedy = "; more than that is seen, so train longer with colours and flat_weight above 0" * (
            max(errors.values()) > VISIBLE_LEVELS
        )
        return f"125 flat colours move by at most (levels of 255, {VISIBLE_LEVELS} are allowed): {text}{remedy}"

    def _facts(self, results: dict[str, str]) -> Record:
        settings = dataclasses.asdict(self.recipe)
        for name in FREE:
            del settings[name]
        for name in {"validation", "initial", "teacher"} & settings.keys():
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

    def train(self, step: str, module: nn.Module, loss: Callable[[int], Tensor], validated: Callable[[], str]) -> None:
        """Run a step, which trains ``module``, from where it stopped."""
        schedule = self._schedule(step, module, loss)
        ema = Ema(module, schedule.ema_decay) if schedule.ema_decay else None
        log = Log(self.out, step, self.recipe.tensorboard) if self.workers.first else None

        def validate() -> str:
            with ema.applied_to(module) if ema else contextlib.nullcontext():
                return validated()

        run_steps(
            step,
            module,
            schedule,
            self.out / f"{step}.state",
            self.recipe.save_every,
            loss,
            validate,
            ema,
            self.workers,
            log.write if log else None,
        )
        if ema:
            ema.copy_to(module)

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
        return max(1, min(schedule.iterations, round(self.budget.minutes * 60 * self.shares[step] / pace)))

    def psnr(self, image: Tensor, hr: np.ndarray) -> float:
        """PSNR-Y of an image (1, 3, sH, sW) in 0..1 against uint8 (sH, sW, 3)."""
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
