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
from mga_kernels.networks import ClassConfig, ModelConfig, WholeConfig, get_network

from ..evaluation.masks import QUANTILE
from ..settings.toml import build, read_table
from ..settings.values import parse_split
from .loop import OPTIMISERS
from .schedule import Schedule

THREE_STEP, CLASSES = "three-step", "classes"
STARTS = ("default", "identity")
STRATEGIES = (THREE_STEP, "end-to-end", "unsupervised-mask")


def _mask_schedule() -> Schedule:
    return Schedule(iterations=100_000, periods=1)


@dataclass
class Common:
    """What every training is told. Paths may contain environment variables; relative ones are taken from the current
    folder."""

    network: str
    scale: int
    out: str  # folder for the resumable states, the log and the results
    train: list[str]  # packs made by `mga prepare`, each of which is drawn from equally often
    validation: str = ""  # a pack of images that are not trained on
    recipe: str = THREE_STEP  # or "classes" (``mga.training.classes``), which has settings of its own
    crop: int = 64  # side of a crop in LR pixels
    batch: int = 32  # crops in an iteration, of all processes together
    # Share of the crops that get other colours, and weight of the loss of flat images beside that of the crops, both 0
    # in the paper. Without them a small network may break colours that photographs hardly have (``mga.training.flat``).
    colours: float = 0.0
    flat_weight: float = 0.0
    seed: int = 0
    device: str = "auto"
    bf16: bool = False  # bf16 arithmetic; weights stay fp32
    save_every: int = 1000
    tensorboard: bool = False
    start: str = "default"  # other weights to start from: PyTorch's, or "identity" (``mga.training.start``, FSRCNN)
    licence: dict[str, str] = field(default_factory=dict)  # notices stored with the weights, by subject

    def steps(self) -> tuple[str, ...]:
        """Those of a whole run, in their order."""
        return ()

    def schedule(self, step: str) -> Schedule:
        return getattr(self, step)

    def check(self) -> None:
        """InputError for the first setting that cannot be."""
        if self.start not in STARTS:
            raise InputError(f"train: start {self.start!r} does not exist; choose one of {', '.join(STARTS)}")
        if not self.train:
            raise InputError("train: config.train is empty; name at least one pack (`mga prepare` makes them)")
        for step in self.scheduled():
            if (found := self.schedule(step).optimiser) not in OPTIMISERS:
                raise InputError(
                    f"train: {step}.optimiser {found!r} does not exist; choose one of {', '.join(OPTIMISERS)}"
                )
            if not 0 < (memory := self.schedule(step).memory) < 1:
                raise InputError(f"train: {step}.memory lies between 0 and 1, got {memory}")
        if not 0 <= self.colours <= 1 or not 0 <= self.flat_weight < math.inf:
            raise InputError(
                f"train: colours is a share from 0 to 1 and flat_weight 0 or more, got {self.colours} and "
                f"{self.flat_weight}"
            )
        for name in ("batch", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train: {name} must be 1 or more, got {getattr(self, name)}")

    def scheduled(self) -> tuple[str, ...]:
        """Steps that have a schedule."""
        return self.steps()


@dataclass
class Recipe(Common):
    """The paper's training of a mask-guided network."""

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
    strategy: str = THREE_STEP
    coarse_weight: float = 1.0  # of the l1 error of the coarse image beside that of the final one
    target_quantile: float = QUANTILE  # the mean cell difference at this quantile of the training cells is mask value 1
    # Weights file of a network whose images of crops in their own colours take the place of HR in steps 1 and 2: what
    # it does to photographs is kept, while ``colours`` and ``flat_weight`` mend what it does to others.
    teacher: str = ""
    initial: str = ""  # weights file of the same model that training starts from
    base: Schedule = field(default_factory=Schedule)  # -B alone (step "base")
    dense: Schedule = field(default_factory=Schedule)  # step 1: D-Net
    all: Schedule = field(default_factory=Schedule)  # step 2: All-Net; also "end-to-end"
    mask: Schedule = field(default_factory=_mask_schedule)  # step 3

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

    def scheduled(self) -> tuple[str, ...]:
        return (*self.steps(), "base")

    def schedule(self, step: str) -> Schedule:
        return self.all if step == "end-to-end" else super().schedule(step)

    def check(self) -> None:
        refine = self.model_config().definition.refine
        if self.sees_halo and (refine is None or "sees_halo" not in inspect.signature(refine).parameters):
            raise InputError(f"train: sees_halo is for fsrcnn; the Refine-Net of {self.network} has no such setting")
        if self.strategy not in STRATEGIES:
            raise InputError(f"train: strategy {self.strategy!r} does not exist; choose one of {', '.join(STRATEGIES)}")
        super().check()
        if self.crop % self.patch_size or self.crop < 2 * self.patch_size:
            raise InputError(f"train: crop must be a multiple of p = {self.patch_size}, got {self.crop}")


@dataclass
class ClassRecipe(Common):
    """ClassSR's training: a branch for each class, then the classifier (``mga.training.classes``)."""

    # Settings of the branches beside their blocks, the cheapest first, such as [{ expanded = 16 }, { expanded = 56 }].
    branches: list[dict[str, int]] = field(default_factory=list)
    blocks: int = 0  # of each branch; 0: as many as both halves of the paper have
    window: int = 32  # side of a sub-image in LR pixels, which is that of a crop
    step: int = 28  # from one sub-image to the next
    class_batch: int = 96  # crops in an iteration of the classifier, which is to send as many to each class
    # ClassSR's weights of the l1 error of the image, of how clearly each crop belongs to one class, and of how evenly
    # the classes are used.
    image_weight: float = 2000.0
    class_weight: float = 1.0
    average_weight: float = 6.0
    branch: Schedule = field(default_factory=Schedule)  # of each branch
    classifier: Schedule = field(default_factory=_mask_schedule)

    def model_config(self) -> ClassConfig:
        """What the trained model is; InputError for settings that no network has."""
        blocks = self.blocks or sum(get_network(self.network).split) or 1
        branches = (WholeConfig(self.network, self.scale, blocks, dict(settings)) for settings in self.branches)
        return ClassConfig(tuple(branches), self.window, self.step)

    def steps(self) -> tuple[str, ...]:
        return (*(f"branch-{number}" for number in range(1, len(self.branches) + 1)), "classifier")

    def schedule(self, step: str) -> Schedule:
        return super().schedule(step.partition("-")[0])

    def check(self) -> None:
        if len(self.branches) < 2:
            raise InputError(
                f"train: branches names {len(self.branches)} networks; name two or more, the cheapest first"
            )
        self.model_config()
        super().check()
        if self.crop != self.window:
            raise InputError(f"train: crop {self.crop} is not the side of a sub-image, window = {self.window}")
        if self.class_batch < 1:
            raise InputError(f"train: class_batch must be 1 or more, got {self.class_batch}")


RECIPES: dict[object, type[Recipe] | type[ClassRecipe]] = {THREE_STEP: Recipe, CLASSES: ClassRecipe}


def load_recipe(
    path: str | Path, overrides: Mapping[str, str] | None = None, command: str = "train"
) -> Recipe | ClassRecipe:
    """The recipe in a TOML file, checked."""
    values = read_table(path, overrides or {}, command)
    kind = values.get("recipe", THREE_STEP)
    if kind == "refine-only":
        raise InputError(
            f'{command}: the recipe "refine-only" is no more; `mga convert CKPT --extend N` gives a published network '
            'a Refine-Net and a mask, and the recipe "three-step" trains a network as a whole'
        )
    if kind not in RECIPES:
        raise InputError(f'{command}: config.recipe must be "{THREE_STEP}" or "{CLASSES}", got {kind!r}')
    recipe = build(RECIPES[kind], values, "config", command)
    recipe.check()
    return recipe
