"""``mga test-sets DIV8K/ -o testsets/``: the HR images of Test2K and Test4K (``mga.evaluation.div8k``)."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..console.failures import Failures
from ..evaluation import div8k


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIV8K", help="folder of DIV8K's images, named by their number")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="gets NAME/HR for each set")
    parser.add_argument("--only", nargs="+", choices=tuple(div8k.SETS), default=list(div8k.SETS), help="default: both")


def run(args: argparse.Namespace) -> int:
    failures = Failures()
    made = div8k.make_sets(args.folder, args.output, args.only, failures)
    return failures.exit_code(made)
