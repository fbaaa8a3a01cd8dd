"""``mga train CONFIG.toml [--step refine|mask] [--set name=value]``."""

from __future__ import annotations

import argparse

from mga_kernels.errors import InputError

from .config import load_config
from .pipeline import STEPS, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="TOML file; its fields are documented in mga.train.config")
    parser.add_argument("--step", choices=STEPS, help="run one step only (default: refine, then mask)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a field, for example --set refine.iterations=2000 (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    overrides = {}
    for text in args.overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"train: --set takes NAME=VALUE, got {text!r}")
        overrides[name] = value
    target = train(load_config(args.config, overrides), (args.step,) if args.step else STEPS)
    print(f"written: {target}")
    return 0
