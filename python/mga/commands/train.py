"""``mga train CONFIG.toml [--step NAME] [--budget 90m] [--set name=value]``."""

from __future__ import annotations

import argparse

from ..settings.toml import overrides_of
from ..training.classes import Classes
from ..training.recipe import ClassRecipe, load_recipe
from ..training.run import Budget
from ..training.three_step import ThreeStep
from ..training.workers import leave
from .options import add_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="TOML file; its fields are documented in mga.training.recipe")
    parser.add_argument(
        "--step",
        choices=("base", "dense", "all", "mask", "end-to-end", "branches", "classifier"),
        help="run one step only (default: all of the recipe; base, which is -B alone, is in none of them)",
    )
    parser.add_argument(
        "--budget", help='scale the schedule to so many iterations ("20000") or so much time ("90m", "1.5h")'
    )
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.config, overrides_of(args.overrides, "train"))
    budget = Budget.parse(args.budget) if args.budget else Budget()
    try:
        training = Classes(recipe, budget) if isinstance(recipe, ClassRecipe) else ThreeStep(recipe, budget)
        target = training.run((args.step,) if args.step else ())
    finally:
        leave()
    print(f"written: {target}")
    return 0
