"""How the halves of a published network are trained: the fields of ``mga convert --config TOML`` and ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mga_kernels.errors import InputError

from ..evaluation.masks import QUANTILE
from ..files.claim import flat
from ..settings.toml import load

SHARES = {"split": {"base": 0.1, "joint": 0.7, "mask": 0.2}, "extend": {"refine": 0.8, "mask": 0.2}}
RATES = {"base": 2e-3, "joint": 6e-4, "refine": 4e-4, "mask": 4e-4}


@dataclass
class Training:
    """The steps are those of ``mga.conversion.fitting``."""

    crop: int = 48  # side of a crop in LR pixels; smaller images are left out
    batch: int = 4  # crops in an iteration
    seed: int = 0
    ema_decay: float = 0.99  # of the moving average of the weights that is kept
    decibels: bool = False  # extended: the PSNR of each crop is trained, not the squares of all, most of which few have
    target_quantile: float = QUANTILE  # the mean cell difference at this quantile is mask value 1
    rates: dict[str, float] = field(default_factory=dict)  # highest learning rate of a step, by its name; else RATES

    def rate(self, step: str) -> float:
        return self.rates.get(step, RATES[step])

    def changed(self) -> dict[str, object]:
        """What is not as usual, under dotted names."""
        usual = flat(asdict(Training()))
        return {name: value for name, value in flat(asdict(self)).items() if value != usual.get(name)}

    def check(self, patch_size: int) -> None:
        """InputError for a value that no training can have."""
        if self.crop < 2 * patch_size:
            raise InputError(f"convert: crop must be {2 * patch_size} or more, twice the patch size, got {self.crop}")
        if self.batch < 1 or self.seed < 0:
            raise InputError(f"convert: batch is 1 or more and seed 0 or more, got {self.batch} and {self.seed}")
        if not 0 < self.ema_decay < 1 or not 0 < self.target_quantile <= 1:
            raise InputError(
                "convert: ema_decay lies between 0 and 1, target_quantile too or is 1, got "
                f"{self.ema_decay} and {self.target_quantile}"
            )
        for step, rate in self.rates.items():
            if step not in RATES or not 0 < rate < 1:
                known = ", ".join(RATES)
                raise InputError(f"convert: rates.{step} = {rate} is none; steps are {known}, rates between 0 and 1")


def load_training(path: Path | None, overrides: Mapping[str, str], patch_size: int) -> Training:
    """The settings in a TOML file, or the usual ones, and what ``--set`` changes."""
    training = load(Training, path, overrides, "config", "convert")
    training.check(patch_size)
    return training
