"""``mga models``: what comes with the package, for what each is, how good it is and, if asked, how fast here."""

from __future__ import annotations

import argparse
import json
import time
import tomllib

from mga_kernels.catalogue import SHIPPED, shipped_models, written_in

from ..files.records import Record
from ..settings.values import parse_size
from .options import word

FACTS = SHIPPED / "models.toml"
REGIONS, WITHOUT_MASK = "regions", ("whole", "classes")  # forms of networks
SIZE = 480, 270  # of the photograph whose time is taken: a quarter of full HD each way


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--seconds",
        nargs="?",
        type=word(parse_size),
        const=SIZE,
        metavar="WxH",
        help=f"measure how long an image of this size takes here (default {SIZE[0]}x{SIZE[1]})",
    )


def describe(size: tuple[int, int] | None = None) -> dict[str, Record]:
    """Facts of every shipped model by name, those for the same scale together, the best first.

    ``size``, width and height: with the seconds that an image of it takes, the second time.
    """
    known = tomllib.loads(FACTS.read_text())
    models: dict[str, Record] = {}
    for name, path in shipped_models().items():
        said, facts = written_in(path), known.get(name, {})
        config = said["config"]["refine"] if said["form"] == REGIONS else said["config"]
        models[name] = {
            "network": config["network"],
            "scale": config["scale"],
            "masked": said["form"] not in WITHOUT_MASK,
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "purpose": facts.get("purpose", ""),
            "psnr_y": facts.get("psnr", {}),
        }
        if size is not None:
            models[name]["seconds"] = _seconds(name, size)
    order = {name: place for place, name in enumerate(known)}
    return dict(sorted(models.items(), key=lambda item: (-item[1]["scale"], order.get(item[0], len(order)))))


def _seconds(name: str, size: tuple[int, int]) -> float:
    from mga_kernels.engine import MaskGuidedSR  # which brings PyTorch

    from ..evaluation.photograph import photograph

    model = MaskGuidedSR.from_pretrained(name)
    image = photograph(*size)
    model.upscale(image)
    start = time.perf_counter()
    model.upscale(image)
    return round(time.perf_counter() - start, 3)


def run(args: argparse.Namespace) -> int:
    models = describe(args.seconds)
    if args.json:
        print(json.dumps(models, indent=2))
        return 0
    rows = [["model", "", "MB", "PSNR-Y in dB", "for"]]
    for name, facts in models.items():
        figures = ", ".join(f"{where} {value:.2f}" for where, value in facts["psnr_y"].items())
        taken = [] if args.seconds is None else [f"{facts['seconds']:.2f} s"]
        rows.append([name, f"x{facts['scale']}", f"{facts['megabytes']:.1f}", figures or "-", *taken, facts["purpose"]])
    if args.seconds is not None:
        rows[0].insert(4, "{}x{}".format(*args.seconds))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
