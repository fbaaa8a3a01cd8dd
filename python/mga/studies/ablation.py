"""The studies of ``mga ablate``: values of one setting trained alike, or one model run in several ways, in a table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mga_kernels.checkpoints import read_metadata
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, RegionConfig
from mga_kernels.networks.config import PATCH_SIZES
from mga_kernels.system.files import whole_file, writable_folder

from ..evaluation.suite.config import Suite
from ..evaluation.suite.markdown import to_markdown
from ..evaluation.suite.runners import Row
from ..evaluation.suite.table import measure
from ..evaluation.testsets import ImageSet, find_sets
from ..files.records import write_text
from ..settings.processes import share_of_all
from ..settings.toml import overrides_of
from ..settings.values import amount, parse_split
from ..training.recipe import STRATEGIES, Recipe, load_recipe
from ..training.run import Budget
from ..training.three_step import ThreeStep

ORDERS = ("smallest", "random", "largest")  # as in Table 7


@dataclass(frozen=True)
class Study:
    """What is varied: a field of the recipe. ``shared`` are the steps that all values have in common."""

    title: str
    field: str = ""
    shared: tuple[str, ...] = ()


STUDIES = {
    "classes": Study("1C against 2C (Table 3)", "classes", ("dense", "all")),
    "strategy": Study("Training strategies (Table 4)", "strategy", ("dense", "all")),
    "split": Study("Blocks of Base-Net and Refine-Net (Table 5)", "split"),
    "patch-size": Study("Size p of the patches (Table 6)", "patch_size", ("dense",)),
    "selection": Study("Order of selection (Table 7)"),
    "k": Study("Number K of refined patches"),
}


@dataclass(frozen=True)
class Request:
    """What is asked for. ``subject``: a configuration to train, or for "selection" and "k" a trained model."""

    study: str
    subject: str
    output: Path
    sets: Path
    only: Sequence[str] = ()
    values: Sequence[str] = ()
    k: str | None = None
    budget: str | None = None
    base: bool = False
    overrides: Sequence[str] = ()


def run_study(asked: Request) -> str:
    """Train what is missing, measure, and write STUDY.json and STUDY.md; returns the latter."""
    study = STUDIES[asked.study]
    if not study.field:
        options = {"--budget": asked.budget, "--base": asked.base, "--set": asked.overrides}
        if given := [name for name, value in options.items() if value]:
            raise InputError(f"ablate: {given[0]} is for studies that train; {asked.study} runs one model")
        config = read_metadata(asked.subject)["config"]
        if not isinstance(config, ModelConfig | RegionConfig):
            raise InputError(f"ablate: {asked.subject} is a whole network without a mask; name a mask-guided model")
        sets = find_sets(asked.sets, config.scale, asked.only)
        rows = _rows_of_model(asked, config)
        writable_folder(asked.output)
        return _report(asked, study, config.scale, rows, sets)
    if share_of_all().world > 1:
        raise InputError("ablate: runs in one process; leave out torchrun")
    recipe = load_recipe(asked.subject, overrides_of(asked.overrides, "ablate"), "ablate")
    if not isinstance(recipe, Recipe):
        raise InputError(f"ablate: {asked.subject} trains a network without a mask; name a three-step configuration")
    values = _values(asked, recipe)
    sets = find_sets(asked.sets, recipe.scale, asked.only)
    budget = Budget.parse(asked.budget) if asked.budget else Budget()
    writable_folder(asked.output)
    return _report(asked, study, recipe.scale, _trained(asked, study, recipe, values, budget), sets)


def _report(asked: Request, study: Study, scale: int, rows: list[Row], sets: list[ImageSet]) -> str:
    suite = Suite(scale)
    figures = measure(rows, sets, suite, asked.output / f"{asked.study}.json", study.title)
    text = to_markdown(figures, suite, study.title)
    write_text(asked.output / f"{asked.study}.md", text)
    return text


def _rows_of_model(asked: Request, config: ModelConfig | RegionConfig) -> list[Row]:
    name = Path(asked.subject).stem
    if asked.study == "k":
        if asked.k is not None:
            raise InputError("ablate: the values of K are --values, not --k")
        k = config.k
        counts = (0,) if isinstance(config, RegionConfig) else (0, k // 4, k // 2, k, 2 * k)
        values = asked.values or (*map(str, counts), "25%", "50%", "all")
        return [Row(name, asked.subject, "masked", *amount(value)) for value in values]
    own = (None, config.share) if isinstance(config, RegionConfig) else (config.k, None)
    chosen = amount(asked.k) if asked.k is not None else own
    orders = asked.values or list(ORDERS)
    if wrong := [order for order in orders if order not in ORDERS]:
        raise InputError(f"ablate: the order {wrong[0]!r} does not exist; choose from {', '.join(ORDERS)}")
    rows = [Row(name, asked.subject, "masked", 0, None, "largest")]
    for share in dict.fromkeys((chosen, (None, 0.5))):
        rows += [Row(name, asked.subject, "masked", *share, order) for order in orders]
    return [*rows, Row(name, asked.subject, "masked", None, 1.0, "largest")]


def _values(asked: Request, recipe: Recipe) -> Sequence[str]:
    """What is compared, checked before hours of training begin."""
    if asked.study == "split":
        base, refine = parse_split(recipe.split) if recipe.split else recipe.model_config().split
        step = max(1, refine // 2)
        near = [(base - step, refine + step), (base, refine), (base + step, refine - step)]
        default = [f"{a}+{b}" for a, b in near if min(a, b) > 0]
    else:
        default = {"classes": ["1", "2"], "strategy": list(STRATEGIES), "patch-size": [str(p) for p in PATCH_SIZES]}[
            asked.study
        ]
    values = asked.values or default
    if len(set(values)) < len(values):
        raise InputError("ablate: a value is given twice")
    for value in values:
        varied = _vary(recipe, asked.study, value)
        varied.check()
        with torch.device("meta"):
            MaskGuidedNetwork(varied.model_config())  # knows what its parts cannot be
    return values


def _vary(recipe: Recipe, study: str, value: str) -> Recipe:
    setting: Any = value
    if study in ("classes", "patch-size"):
        if not value.isdecimal():
            raise InputError(f"ablate: {study} is a number, got {value!r}")
        setting = int(value)
    return replace(recipe, **{STUDIES[study].field: setting})


def _trained(asked: Request, study: Study, recipe: Recipe, values: Sequence[str], budget: Budget) -> list[Row]:
    """Train what is missing; the rows of the table."""
    share = amount(asked.k) if asked.k is not None else (None, None)
    name, rows, common = recipe.network, [], None
    if asked.base:
        for value in values if asked.study == "split" else [""]:
            varied = _vary(recipe, asked.study, value) if value else recipe
            out = asked.output / "-".join(word for word in ("base", value) if word)
            path = ThreeStep(replace(varied, out=str(out)), budget).run(("base",))
            rows.append(Row(f"{name} {value}".strip(), str(path), "base"))
    if study.shared:
        shared = replace(recipe, out=str(asked.output / "shared"), strategy="three-step")
        common = dense = _keep(ThreeStep(shared, budget).run(("dense",)), "d-net")
        rows.append(Row(name, str(dense), "decomposed"))
        if len(study.shared) > 1:
            common = ThreeStep(shared, budget).run(study.shared)
    for value in values:
        varied = replace(_vary(recipe, asked.study, value), out=str(asked.output / f"{asked.study}-{value}"))
        path = _train_value(varied, budget, study, common)
        rows.append(Row(f"{name} ({_label(asked.study, value)})", str(path), "masked", *share))
    return rows


def _train_value(recipe: Recipe, budget: Budget, study: Study, common: Path | None) -> Path:
    """Train one value, from the weights of the shared steps; "end-to-end" starts from none and takes all iterations."""
    if recipe.strategy == "end-to-end":
        if budget == Budget():
            steps = replace(recipe, strategy="three-step").steps()
            budget = Budget(iterations=sum(recipe.schedule(step).iterations for step in steps))
        return ThreeStep(recipe, budget).run()
    steps = tuple(step for step in recipe.steps() if step not in study.shared)
    return ThreeStep(recipe, budget, common).run(steps)


def _keep(path: Path, name: str) -> Path:
    """A copy of weights that the next step would replace."""
    target = path.with_name(f"{name}.safetensors")
    with path.open("rb") as source, whole_file(target) as stream:
        shutil.copyfileobj(source, stream)
    return target


def _label(study: str, value: str) -> str:
    return {"classes": f"{value}C", "patch-size": f"p = {value}"}.get(study, value)
