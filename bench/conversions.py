"""Networks made mask-guided by `mga convert`: seconds beside the original in every stock runtime, and the whole table.

    python bench/conversions.py SUITE.toml QUALITY.json [--size 4K] [--budget SECONDS] [--only NAME ...]

The suite, one of configs/converted-*.toml, names the original network first, then the converted ones. QUALITY.json is
what `mga evaluate SUITE.toml --json QUALITY.json` wrote. Each contender runs in a process of its own, bytes to bytes
on the CPU; they take turns. The figures go to bench/results/SUITE.json, and the table, with quality, operations and
seconds, to bench/results/SUITE.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import Contender, Run, make, stock
from images import RESULTS, SIZES, _version, figures, picture_file, processor, psnr, size_of, test_image
from turns import Player, contest, play

from mga.evaluation.suite.config import Suite, load_suite
from mga.evaluation.suite.store import newest, read
from mga.files.records import to_json
from mga.settings.values import amount
from mga_kernels import MaskGuidedSR, __version__
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import WholeNetwork

HOST = "original, ours"  # takes part in every heat: quick, and there is always one
LEAST = 35.0  # dB between two pictures of the original


class Body(torch.nn.Module):
    """A published network without what turns colours and values into its own; image in, image out."""

    def __init__(self, network: WholeNetwork):
        super().__init__()
        self.body = network.body

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)[0]


def load_original(suite: Suite) -> tuple[WholeNetwork, float]:
    entry = suite.models[0]
    network = load_checkpoint(
        entry.file,
        input_range=entry.input_range or None,
        scale=entry.model_scale or None,
        expected_scale=suite.scale,
    )
    if not isinstance(network, WholeNetwork) or network.config.colour != "rgb":
        raise SystemExit(f"conversions: the first model of the suite, {entry.name}, is no whole network of RGB")
    return network.eval(), 255.0 if network.config.input_range == "0..255" else 1.0


def engine(file: str, **settings: Any) -> Run:
    model = MaskGuidedSR.from_checkpoint(file, device="cpu", **settings)

    def run(image: np.ndarray) -> np.ndarray:
        return np.asarray(model.upscale(image))

    run.info = model.info  # type: ignore[attr-defined]
    return run


def label(name: str, item: object) -> str:
    """Of a converted network with so many cells refined; without any it is -D."""
    return f"{name}, -D" if item is None else f"{name}, K = {item}"


def all_contenders(suite: Suite, lr: tuple[int, int]) -> list[Contender]:
    original, value_range = load_original(suite)
    found = stock("original", Body(original).eval(), value_range, lr)
    file = suite.models[0].file
    found.append(Contender("original, ours", "original", lambda: engine(file), stock=False))
    for model in suite.models[1:]:
        for item in [None, *suite.k]:
            settings: dict[str, Any] = {"mode": "dense"}
            if item is not None:
                settings = dict(zip(("k", "fraction"), amount(item), strict=True))
            run = lambda f=model.file, s=settings: engine(f, **s)  # noqa: E731
            found.append(Contender(label(model.name, item), "converted", run, stock=False))
    return found


def check(pictures: dict[str, np.ndarray], originals: list[str]) -> None:
    """Exits where two ways to run the original make different pictures."""
    exact = pictures[HOST]
    for name in originals:
        if name in pictures and (value := psnr(pictures[name], exact)) < LEAST:
            raise SystemExit(f"conversions: {name} and {HOST} make different pictures: {value:.1f} dB")


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, Any]:
    suite = load_suite(args.suite)
    width, height = (side // suite.scale for side in size_of(args.size))
    image = test_image(width, height)
    listed = all_contenders(suite, (height, width))
    listed = [c for c in listed if c.name == HOST or not args.only or any(part in c.name for part in args.only)]
    if args.play:
        name, folder = args.play
        contender = next(c for c in listed if c.name == name)
        play(lambda: make(contender), image, picture_file(folder, name), {})
        sys.exit(0)
    originals = [c.name for c in listed if c.function == "original"]
    with tempfile.TemporaryDirectory() as folder:

        def start(name: str) -> Player:
            command = [sys.executable, __file__, args.suite, args.quality, "--size", args.size]
            return Player(name, [*map(str, command), "--play", name, folder])

        def compare(names: list[str]) -> None:
            check({name: np.load(picture_file(folder, name), mmap_mode="r") for name in names}, originals)

        others = [c.name for c in listed if c.name != HOST]
        players, missing = contest(HOST, others, start, compare, lambda player: None, args.budget)
    return {
        "size": args.size,
        "scale": suite.scale,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "versions": {name: _version(name) for name in ("torch", "openvino", "onnxruntime")}
        | {"mga_kernels": __version__},
        "contenders": {
            c.name: {"function": c.function, "stock": c.stock} | figures(players[c.name])
            for c in listed
            if c.name in players
        },
        "missing": missing,
    }


def table(suite: Suite, record: dict[str, Any], quality: list[dict[str, Any]]) -> str:
    """Markdown: each row against the original network and its fastest stock runtime."""
    contenders = record["contenders"]
    ratios = {name: row["times_ours"] for name, row in contenders.items()}  # to the host, of one heat
    fastest = min((name for name, row in contenders.items() if row["stock"]), key=lambda name: ratios[name])
    whole = next(row for row in quality if row["variant"] == "whole")
    sets = list(whole["sets"])
    lines = [
        f"# {suite.models[0].name} x{suite.scale}, converted",
        "",
        f"| network | cells refined | GMACs | of the original's | s | of the original's | {' | '.join(sets)} |",
        f"| --- | --- | ---: | ---: | ---: | ---: |{' ---: |' * len(sets)}",
    ]

    def line(row: dict[str, Any], cells: str, name: str) -> str:
        psnr_y = [f"{row['sets'][one]['psnr_y']:.3f}" for one in sets]
        if row is not whole:
            gains = (row["sets"][one]["psnr_y"] - whole["sets"][one]["psnr_y"] for one in sets)
            psnr_y = [f"{text} ({gain:+.3f})" for text, gain in zip(psnr_y, gains, strict=True)]
        timed = contenders.get(name)
        seconds = ["", ""] if timed is None else [f"{timed['median']:.3f}", f"{ratios[name] / ratios[fastest]:.3f}"]
        cost = [f"{row['gmacs']:.1f}", f"{row['gmacs'] / whole['gmacs']:.3f}"]
        return f"| {' | '.join([row['model'], cells, *cost, *seconds, *psnr_y])} |"

    lines.append(line(whole, "", fastest))
    for row in quality:
        if row["variant"] == "decomposed":
            lines.append(line(row, "all, as one image (-D)", label(row["model"], None)))
        elif row["variant"] == "masked":
            item = row["k"] if row["fraction"] is None else f"{100 * row['fraction']:g}%"
            lines.append(line(row, str(item), label(row["model"], item)))
    width, height = SIZES.get(record["size"], size_of(record["size"]))
    ways = ", ".join(
        f"{name.partition(', ')[2]} {row['median']:.3f}"
        for name, row in contenders.items()
        if row["function"] == "original"
    )
    lines += [
        "",
        f"PSNR-Y in dB, and the difference to the original. GMACs and seconds: a photograph of {width}x{height}, bytes "
        f"to bytes on {record['threads']} cores of {record['processor']}. The original's seconds are those of its "
        f"fastest stock runtime; all of them, and our own: {ways}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, metavar="SUITE.toml")
    parser.add_argument("quality", type=Path, metavar="QUALITY.json")
    parser.add_argument("--size", default="4K", help=f"of the result: {', '.join(SIZES)}, 1024x768 (default 4K)")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="contenders whose names contain one")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each contender (default 10)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="make the table anew from seconds measured before")
    parser.add_argument("--play", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    target = args.out / f"{args.suite.stem.replace('-', '_', 1)}.json"
    record = json.loads(target.read_text()) if args.table else run(args)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(to_json(record))
    text = table(load_suite(args.suite), record, newest(read(args.quality)))
    target.with_suffix(".md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
