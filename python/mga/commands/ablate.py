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
from pathlib import Path

from ..studies.ablation import STUDIES, Request, run_study
from .options import add_overrides, filled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument(
        "config", metavar="CONFIG|MODEL", help="configuration to train; for selection and k a trained model"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the study")
    parser.add_argument("--sets", required=True, type=Path, metavar="DIR", help="folder of test sets")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the test sets to use (default: all)")
    parser.add_argument(
        "--values", nargs="+", default=(), metavar="V", help="what is compared (default: what the paper compares)"
    )
    parser.add_argument("--k", metavar="K", help='K of -M: a number, a share such as "50%%", or "all"')
    parser.add_argument("--budget", help="of each training: iterations or a time, as for mga train")
    parser.add_argument("--base", action="store_true", help="also train -B alone, by the same budget")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    print(run_study(filled(Request, args, subject=args.config)), end="")
    return 0
