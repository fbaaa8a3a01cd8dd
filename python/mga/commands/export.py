"""``mga export MODEL -o OUT.onnx|OUT.pt2|OUT.pte``: -M, or a whole network, as one graph for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from mga_kernels.errors import InputError

from ..settings.values import parse_size
from .options import add_amount_arguments, word

FORMATS = ("onnx", "pt2", "pte")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_amount_arguments(parser)
    parser.add_argument("model", metavar="MODEL", help="shipped model, or a file of weights")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="OUT.onnx, OUT.pt2 or OUT.pte")
    parser.add_argument("--format", choices=FORMATS, help="default: what the name of the file ends with")
    parser.add_argument(
        "--largest", type=word(parse_size), metavar="WxH", help="largest image of a .pte (default 1024x1024)"
    )
    parser.add_argument("--model-scale", type=int, metavar="S", help="scale of a file that does not tell it")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(args: argparse.Namespace) -> int:
    from mga_kernels.export import export_model

    if args.output.exists() and not args.overwrite:
        raise InputError(f"export: {args.output} exists; choose another name or add --overwrite")
    settings = {} if args.largest is None else {"largest": args.largest[::-1]}
    amount = {"k": args.k, "fraction": args.fraction}
    facts = export_model(args.model, args.output, **amount, format=args.format, scale=args.model_scale, **settings)
    shown = "whole" if facts["refined"] is None else f"K = {facts['k']}"
    shown = f"{facts['fraction']:g} of the cells" if facts.get("fraction") is not None else shown
    size = args.output.stat().st_size / 1e6
    print(f"{args.model} -> {args.output} ({facts['network']} x{facts['scale']}, {shown}, {size:.1f} MB)")
    return 0
