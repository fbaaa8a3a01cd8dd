"""Configuration of the paper's training (sections 3.5 and 4.1): one TOML file, every field typed and documented here.

The defaults are the paper's numbers. What section 4.4 varies has the names that it has elsewhere: ``patch_size`` (Table
6), ``split`` (Table 5), ``selection`` and ``k`` (Table 7), ``classes`` of the mask (Table 3), ``strategy`` (Table 4).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig

from ..evaluation.masks import QUANTILE
from ..settings.toml import build, read_table
from ..settings.values import parse_split
from .loop import OPTIMISERS
from .schedule import Schedule

STARTS = ("default", "identity")
STRATEGIES = ("three-step", "end-to-end", "unsupervised-mask")


def _mask_schedule() -> Schedule:
    return Schedule(iterations=100_000, periods=1)


@dataclass
class Recipe:
    """A whole run. Paths may contain environment variables; relative ones are taken from the current folder."""

    network: str
    scale: int
    out: str  # folder for the resumable states, the log and the results
    train: list[str]  # packs made by `mga prepare`, each of which is drawn from equally often
    validation: str = ""  # a pack of images that are not trained on
    recipe: str = "three-step"  # the only one
    patch_size: int = 4
    split: str = ""  # blocks of Base-Net and Refine-Net, as in "12+4"; empty: those of the paper
    selection: str = "largest"
    usual_mask: str = "learned"  # by what photographs' cells are chosen, or "high-pass"; `bench/masks.py` compares
    k: int = 0  # 0: the paper's 16,000 / p^2
    sees_halo: bool = False  # of FSRCNN's Refine-Net, which without it needs far more iterations
    classes: int = 2
    order: str = "softmax-then-pool"
    filter_source: str = "probability"
    # "three-step": dense, all, mask. "end-to-end": -M at once from scratch. "unsupervised-mask": as three-step, but the
    # mask learns from the error of the final image alone. In the latter two the gradient reaches the mask as if patches
    # were blended by its values (``objectives.gated_loss``).
    strategy: str = "three-step"
    crop: int = 64  # side of a crop in LR pixels
    batch: int = 32  # crops in an iteration, of all processes together
    # Share of the crops that get other colours, and weight of the loss of flat images beside that of the crops, both 0
    # in the paper. Without them a small network may break colours that photographs hardly have (``mga.training.flat``).
    colours: float = 0.0
    flat_weight: float = 0.0
    coarse_weight: float = 1.0  # of the l1 error of the coarse image beside that of the final one
    target_quantile: float = QUANTILE  # the mean cell difference at this quantile of the training cells is mask value 1
    seed: int = 0
    device: str = "auto"
    bf16: bool = False  # bf16 arithmetic; weights stay fp32
    save_every: int = 1000
    tensorboard: bool = False
    # Weights file of a network whose images of crops in their own colours take the place of HR in steps 1 and 2: what
    # it does to photographs is kept, while ``colours`` and ``flat_weight`` mend what it does to others.
    teacher: str = ""
    initial: str = ""  # weights file of the same model that training starts from
    start: str = "default"  # other weights to start from: PyTorch's, or "identity" (``mga.training.start``, FSRCNN)
    base: Schedule = field(default_factory=Schedule)  # -B alone (step "base")
    dense: Schedule = field(default_factory=Schedule)  # step 1: D-Net
    all: Schedule = field(default_factory=Schedule)  # step 2: All-Net; also "end-to-end"
    mask: Schedule = field(default_factory=_mask_schedule)  # step 3
    licence: dict[str, str] = field(default_factory=dict)  # notices stored with the weights, by subject

    def model_config(self) -> ModelConfig:
        """What the trained model is; InputError for settings that no network has."""
        split = parse_split(self.split) if self.split else ()
        mask = {name: getattr(self, name) for name in ("classes", "order", "filter_source")}
        refine = {"sees_halo": True} if self.sees_halo else {}
        return ModelConfig(
            *(self.network, self.scale, self.patch_size, self.k, split, self.selection, self.usual_mask),
            refine=refine,
            mask=mask,
        )

    def steps(self) -> tuple[str, ...]:
        return ("end-to-end",) if self.strategy == "end-to-end" else ("dense", "all", "mask")

    def schedule(self, step: str) -> Schedule:
        return self.all if step == "end-to-end" else getattr(self, step)

    def check(self) -> None:
        if self.recipe != "three-step":
            raise InputError(f'train: config.recipe must be "three-step", got {self.recipe!r}')
        refine = self.model_config().definition.refine
        if self.sees_halo and (refine is None or "sees_halo" not in inspect.signature(refine).parameters):
            raise InputError(f"train: sees_halo is for fsrcnn; the Refine-Net of {self.network} has no such setting")
        if self.strategy not in STRATEGIES:
            raise InputError(f"train: strategy {self.strategy!r} does not exist; choose one of {', '.join(STRATEGIES)}")
        if self.start not in STARTS:
            raise InputError(f"train: start {self.start!r} does not exist; choose one of {', '.join(STARTS)}")
        if not self.train:
            raise InputError("train: config.train is empty; name at least one pack (`mga prepare` makes them)")
        if self.crop % self.patch_size or self.crop < 2 * self.patch_size:
            raise InputError(f"train: crop must be a multiple of p = {self.patch_size}, got {self.crop}")
        for step in (*self.steps(), "base"):
            if (found := self.schedule(step).optimiser) not in OPTIMISERS:
                raise InputError(
                    f"train: {step}.optimiser {found!r} does not exist; choose one of {', '.join(OPTIMISERS)}"
                )
        if not 0 <= self.colours <= 1 or not 0 <= self.flat_weight < math.inf:
            raise InputError(
                f"train: colours is a share from 0 to 1 and flat_weight 0 or more, got {self.colours} and "
                f"{self.flat_weight}"
            )
        for name in ("batch", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train: {name} must be 1 or more, got {getattr(self, name)}")


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None, command: str = "train") -> Recipe:
    """The recipe in a TOML file, checked."""
    values = read_table(path, overrides or {}, command)
    if values.get("recipe") == "refine-only":
        raise InputError(
            f'{command}: the recipe "refine-only" is no more; `mga convert CKPT --extend N` gives a published network '
            'a Refine-Net and a mask, and the recipe "three-step" trains a network as a whole'
        )
    recipe = build(Recipe, values, "config", command)
    recipe.check()
    return recipe
