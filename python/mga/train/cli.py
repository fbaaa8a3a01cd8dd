"""``mga train CONFIG.toml [--step NAME] [--budget 90m] [--set name=value]``."""

from __future__ import annotations

import argparse

from mga_kernels.errors import InputError

from .config import load_config
from .three_step import Budget, ThreeStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="TOML file; its fields are documented in mga.train.recipe")
    parser.add_argument(
        "--step",
        choices=("base", "dense", "all", "mask", "end-to-end"),
        help="run one step only (default: all of the recipe; base, which is -B alone, is in none of them)",
    )
    parser.add_argument(
        "--budget", help='scale the schedule to so many iterations ("20000") or so much time ("90m", "1.5h")'
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a field, for example --set mask.iterations=2000 (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    overrides = {}
    for text in args.overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"train: --set takes NAME=VALUE, got {text!r}")
        overrides[name] = value
    recipe = load_config(args.config, overrides)
    budget = Budget.parse(args.budget) if args.budget else Budget()
    target = ThreeStep(recipe, budget).run((args.step,) if args.step else ())
    print(f"written: {target}")
    return 0
