"""``mga report MODEL --original CKPT --images DIR -o OUT.html``: an accelerated model beside its original."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..console.screen import screen
from .options import add_conventions, add_device_arguments, patches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="mask-guided model: a shipped one, or a file")
    parser.add_argument("--original", required=True, metavar="CKPT", help="the published network it was made from")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of images to upscale")
    parser.add_argument(
        "--hr", type=Path, metavar="DIR", help="their HR images by name; alone: LR images are made from them"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT.html")
    parser.add_argument(
        "--k", type=patches, nargs="+", metavar="N", help="the K to measure (default: 0, 250, 500, ... all cells)"
    )
    add_device_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    add_conventions(parser, "the original, where its tensors do not tell")


def run(args: argparse.Namespace) -> int:
    from ..report.write import write_report

    console = screen(stderr=True, highlight=False, markup=False)
    with console.status("report") as status:
        written = write_report(
            args.model,
            args.original,
            args.images,
            args.output,
            args.hr,
            ks=args.k,
            device=args.device,
            dtype=args.dtype,
            colour=args.colour,
            input_range=args.input_range,
            original_scale=args.model_scale,
            overwrite=args.overwrite,
            say=lambda text: status.update(f"report: {text}"),
        )
    print(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return 0
