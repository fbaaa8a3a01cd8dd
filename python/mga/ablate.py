"""``mga ablate``: the studies of section 4.4 of the paper, each with one table (STUDY.md, STUDY.json) in the end.

    mga ablate classes CONFIG.toml -o DIR --sets testsets/ --budget 3h     # 1C against 2C (Table 3)
    mga ablate strategy CONFIG.toml -o DIR --sets testsets/ --budget 3h    # three-step, end-to-end, no supervision (4)
    mga ablate split CONFIG.toml -o DIR --sets testsets/ --values 10+6 12+4 14+2                              # Table 5
    mga ablate patch-size CONFIG.toml -o DIR --sets testsets/                                                 # Table 6
    mga ablate selection MODEL -o DIR --sets testsets/                     # order of selection (Table 7)
    mga ablate k MODEL -o DIR --sets testsets/

The first four train each value as CONFIG says (a configuration of ``mga train``) with the same
budget and seed, in folders of their own under DIR; steps in which the values do not differ are trained once, in
DIR/shared, so that nothing but the value studied makes a difference. A budget in iterations is equal exactly, one in
time as far as the machine runs evenly. Where step 1 is shared there is a row for -D, with its weights; ``--base``
trains and adds -B. A study that was stopped goes on when the command is given again. The last two run one trained
model.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mga_kernels.checkpoints import read_metadata
from mga_kernels.errors import InputError
from mga_kernels.files import whole_file, writable_folder
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.config import PATCH_SIZES

from .model_options import parse_split
from .suite.config import Suite, amount
from .suite.markdown import to_markdown
from .suite.models import Row
from .suite.table import measure
from .testsets import ImageSet, find_sets
from .train.config import load_config
from .train.recipe import STRATEGIES, Recipe
from .train.three_step import Budget, ThreeStep

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument(
        "config", metavar="CONFIG|MODEL", help="configuration to train; for selection and k a trained model"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the study")
    parser.add_argument("--sets", required=True, type=Path, metavar="DIR", help="folder of test sets")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the test sets to use (default: all)")
    parser.add_argument("--values", nargs="+", metavar="V", help="what is compared (default: what the paper compares)")
    parser.add_argument("--k", metavar="K", help='K of -M: a number, a share such as "50%%", or "all"')
    parser.add_argument("--budget", help="of each training: iterations or a time, as for mga train")
    parser.add_argument("--base", action="store_true", help="also train -B alone, by the same budget")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help="override a field of CONFIG"
    )


def run(args: argparse.Namespace) -> int:
    study = STUDIES[args.study]
    if not study.field:
        options = {"--budget": args.budget, "--base": args.base, "--set": args.overrides}
        if given := [name for name, value in options.items() if value]:
            raise InputError(f"ablate: {given[0]} is for studies that train; {args.study} runs one model")
        config = read_metadata(args.config)["config"]
        sets = find_sets(args.sets, config.scale, args.only)
        rows = _rows_of_model(args, config)
        writable_folder(args.output)
        return _report(args, study, config.scale, rows, sets)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("ablate: runs in one process; leave out torchrun")
    overrides = dict(text.partition("=")[::2] for text in args.overrides)
    recipe = load_config(args.config, overrides)
    values = _values(args, recipe)
    sets = find_sets(args.sets, recipe.scale, args.only)
    budget = Budget.parse(args.budget) if args.budget else Budget()
    writable_folder(args.output)
    return _report(args, study, recipe.scale, _trained(args, study, recipe, values, budget), sets)


def _report(args: argparse.Namespace, study: Study, scale: int, rows: list[Row], sets: list[ImageSet]) -> int:
    suite = Suite(scale)
    figures = measure(rows, sets, suite, args.output / f"{args.study}.json", study.title)
    text = to_markdown(figures, suite, study.title)
    with whole_file(args.output / f"{args.study}.md") as stream:
        stream.write(text.encode(errors="backslashreplace"))  # names of files may be no text
    print(text, end="")
    return 0


def _rows_of_model(args: argparse.Namespace, config: ModelConfig) -> list[Row]:
    name = Path(args.config).stem
    if args.study == "k":
        if args.k is not None:
            raise InputError("ablate: the values of K are --values, not --k")
        k = config.k
        return [
            Row(name, args.config, "masked", *amount(value))
            for value in args.values or [0, k // 4, k // 2, k, 2 * k, "25%", "50%", "all"]
        ]
    chosen = amount(args.k) if args.k is not None else (config.k, None)
    orders = args.values or list(ORDERS)
    if wrong := [order for order in orders if order not in ORDERS]:
        raise InputError(f"ablate: the order {wrong[0]!r} does not exist; choose from {', '.join(ORDERS)}")
    rows = [Row(name, args.config, "masked", 0, None, "largest")]
    for share in dict.fromkeys((chosen, (None, 0.5))):
        rows += [Row(name, args.config, "masked", *share, order) for order in orders]
    return [*rows, Row(name, args.config, "masked", None, 1.0, "largest")]


def _values(args: argparse.Namespace, recipe: Recipe) -> list[str]:
    """What is compared, checked before hours of training begin."""
    if args.study == "split":
        base, refine = parse_split(recipe.split) if recipe.split else recipe.model_config().split
        step = max(1, refine // 2)
        near = [(base - step, refine + step), (base, refine), (base + step, refine - step)]
        default = [f"{a}+{b}" for a, b in near if min(a, b) > 0]
    else:
        default = {"classes": ["1", "2"], "strategy": list(STRATEGIES), "patch-size": [str(p) for p in PATCH_SIZES]}[
            args.study
        ]
    values = args.values or default
    if len(set(values)) < len(values):
        raise InputError("ablate: a value is given twice")
    for value in values:
        varied = _vary(recipe, args.study, value)
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


def _trained(args: argparse.Namespace, study: Study, recipe: Recipe, values: list[str], budget: Budget) -> list[Row]:
    """Train what is missing; the rows of the table."""
    share = amount(args.k) if args.k is not None else (None, None)
    name, rows, common = recipe.network, [], None
    if args.base:
        for value in values if args.study == "split" else [""]:
            varied = _vary(recipe, args.study, value) if value else recipe
            out = args.output / "-".join(word for word in ("base", value) if word)
            path = ThreeStep(replace(varied, out=str(out)), budget).run(("base",))
            rows.append(Row(f"{name} {value}".strip(), str(path), "base"))
    if study.shared:
        shared = replace(recipe, out=str(args.output / "shared"), strategy="three-step")
        common = dense = _keep(ThreeStep(shared, budget).run(("dense",)), "d-net")
        rows.append(Row(name, str(dense), "decomposed"))
        if len(study.shared) > 1:
            common = ThreeStep(shared, budget).run(study.shared)
    for value in values:
        varied = replace(_vary(recipe, args.study, value), out=str(args.output / f"{args.study}-{value}"))
        path = _train_value(varied, budget, study, common)
        rows.append(Row(f"{name} ({_label(args.study, value)})", str(path), "masked", *share))
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
