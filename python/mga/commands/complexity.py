"""``mga complexity``: parameters and operations of a network on images of a size, or the table of all networks.

The figures are those of ``mga.complexity.counting``, where the convention stands.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

from PIL import Image

from mga_kernels.errors import ImageError, InputError, reason_of
from mga_kernels.networks import VARIANTS, ClassConfig, Config, ModelConfig, RegionConfig, WholeConfig

from ..complexity.counting import costs_of
from ..files.folders import list_images
from ..files.records import Record, to_json, write_text
from ..settings.values import parse_size
from .network_options import add_model_options, given_options, model_config
from .options import word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--size", type=word(parse_size), metavar="WxH", help="size of the LR image")
    what.add_argument("--images", type=Path, metavar="DIR", help="mean over this folder of HR images")
    what.add_argument(
        "--table", action="store_true", help="all networks beside the paper's figures; writes complexity.json and .md"
    )
    add_model_options(parser)
    parser.add_argument("--model", metavar="NAME|PATH", help="a shipped model or a file, in place of these options")
    parser.add_argument("--variant", choices=VARIANTS, help="of a mask-guided network, default masked")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for --table (default bench/results)")


def run(args: argparse.Namespace) -> int:
    """The command: count and print, or make the table; 1 where the table does not agree with the paper."""
    if args.table:
        return _write_table(args)
    if args.out is not None:
        raise InputError("complexity: --out goes with --table; --json names the file for one network")
    if args.json is not None and not args.json.parent.is_dir():
        raise InputError(f"complexity: {args.json} cannot be written, its folder does not exist")
    config = model_config(args) if args.model is None else _config_of(args)
    variant, k = args.variant or "masked", args.k
    if k is None and isinstance(config, ModelConfig):
        k = config.k
    if not config.masked:
        variant = args.variant or "whole"
    sizes = Counter([args.size]) if args.images is None else lr_sizes(args.images, config.scale)
    result = describe(config, variant, sizes, k) | _describe_images(args, sizes)
    if args.json is not None:
        write_text(args.json, json.dumps(result, indent=2) + "\n")
    print(_text(result))
    return 0


def _config_of(args: argparse.Namespace) -> Config:
    """That of ``--model``, beside which only K may be chosen; a whole network has none."""
    from mga_kernels.checkpoints import load_checkpoint

    others = [name for name in given_options(args) if name != "k"]
    if others:
        raise InputError(f"complexity: --model has settings of its own; leave out --{others[0].replace('_', '-')}")
    config = load_checkpoint(args.model).config
    if not config.masked and args.k is not None:
        raise InputError(f"complexity: {args.model} is a whole network, which refines no patches; leave out --k")
    return config


def lr_sizes(folder: Path, scale: int) -> Counter[tuple[int, int]]:
    """How many images of each LR size (HR size // scale) the folder makes. Only their headers are read."""
    files, _ = list_images(folder)
    if not files:
        raise ImageError(f"complexity: there is no image in {folder}")
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        if not file.is_file():  # opening a pipe would wait for whoever fills it
            raise ImageError(f"complexity: {file} is not there or not a regular file")
        try:
            with Image.open(file) as image:
                width, height = image.size
        except Exception as problem:  # a damaged file raises whatever its decoder trips over
            raise ImageError(f"complexity: the size of {file} cannot be read ({reason_of(problem)})") from None
        if min(width, height) < scale:
            raise ImageError(f"complexity: {file} ({width}x{height}) is too small for x{scale}")
        sizes[width // scale, height // scale] += 1
    return sizes


def describe(config: Config, variant: str, sizes: Counter[tuple[int, int]], k: int | None) -> Record:
    """What was counted and the figures, as they go into the JSON file: a mean over LR sizes and their numbers.

    Of regions without ``k`` the configuration's share of the cells is counted.
    """
    costs, split, patch_size, classes, share = costs_of(config), [], None, None, {}
    if isinstance(config, WholeConfig):
        split = [config.blocks]
    elif isinstance(config, ClassConfig):
        split = [branch.blocks for branch in config.branches]
    elif isinstance(config, RegionConfig):
        split, patch_size = [config.base.blocks, config.refine.blocks], config.patch_size
        share = {"share": config.share} if variant == "masked" and k is None else {}
    else:
        split, patch_size, classes = list(config.split), config.patch_size, config.mask.get("classes", 2)
    cost = costs.mean_cost(variant, ((*size, number) for size, number in sizes.items()), k)
    if math.isnan(cost.macs):
        raise InputError(f"complexity: what {config.network} does cannot be counted, as its code needs the values")
    return {
        "network": config.network,
        "scale": config.scale,
        "variant": variant,
        "split": split,
        "patch_size": patch_size,
        "mask_classes": classes if variant == "masked" else None,
        "k": k if variant == "masked" else None,
        "params": costs.parameters(variant),
        "gmacs": cost.macs / 1e9,
        "gflops_torch": cost.flops / 1e9,
    } | share


def _describe_images(args: argparse.Namespace, sizes: Counter[tuple[int, int]]) -> Record:
    if args.images is None:
        return {"size": list(args.size)}
    pixels = sum(width * height * number for (width, height), number in sizes.items())
    return {
        "images": args.images.resolve().name,
        "count": sizes.total(),
        "mean_lr_pixels": pixels / sizes.total(),
    }


def _text(result: Record) -> str:
    if "size" in result:
        where = f"one LR image of {result['size'][0]}x{result['size'][1]}"
    else:
        where = f"mean of {result['count']} images with {result['mean_lr_pixels']:,.2f} LR pixels"
    k = f", K = {result['k']}" if result["k"] is not None else ""
    k = f", {100 * result['share']:g} % of the cells" if "share" in result else k
    split = "+".join(map(str, result["split"]))
    cells = f", p = {result['patch_size']}{k}" if result["patch_size"] is not None else ""
    return (
        f"{result['network']} x{result['scale']} {result['variant']}, blocks {split}{cells}\n"
        f"{where}\n"
        f"  {result['params']:>14,} parameters\n"
        f"  {result['gmacs']:>14,.3f} G multiply-accumulates (the paper's FLOPs)\n"
        f"  {result['gflops_torch']:>14,.3f} G floating-point operations (torch.utils.flop_counter)"
    )


def _write_table(args: argparse.Namespace) -> int:
    from ..complexity.markdown import to_markdown
    from ..complexity.table import disagreements, make_table, summary

    names = "model", "variant", "json"
    others = [*given_options(args), *(name for name in names if getattr(args, name) is not None)]
    if others:
        raise InputError(f"complexity: --table has settings of its own; leave out --{others[0].replace('_', '-')}")
    folder = args.out or Path(__file__).resolve().parents[3] / "bench" / "results"
    if not folder.is_dir():
        raise InputError(f"complexity: there is no folder {folder}; name one with --out")
    table = make_table()
    for name, text in (("complexity.json", to_json(table)), ("complexity.md", to_markdown(table))):
        write_text(folder / name, text)
        print(f"written: {folder / name}")
    print(summary(table))
    wrong = disagreements(table)
    for line in wrong:
        print(line)
    return 1 if wrong else 0
