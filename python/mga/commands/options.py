"""What several commands take: which model, how much of an image is refined, where it runs; and how words are read."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from mga_kernels.errors import InputError
from mga_kernels.images.size import Size
from mga_kernels.system.memory import parse_memory

from ..settings.values import parse_size

MASK_GUIDED = {2: "fsrcnn-x2", 3: "fsrcnn-x3", 4: "span-x4-regions"}  # by scale
SHIPPED = MASK_GUIDED | {2: "span-x2", 4: "span-x4"}  # the best of each scale
QUALITIES = {4: MASK_GUIDED[4]}  # which have some beside whole
DEFAULT_MODEL = MASK_GUIDED[4]  # of commands about masks
OF_MASKS = "k", "fraction", "threshold", "max_ms", "mode", "mask", "save_mask"  # that only a mask-guided one has

Value = TypeVar("Value")


def word(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """The type of an option whose value ``parse`` reads: its InputError is what the parser says."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def whole_number(what: str, least: int = 0, most: float = math.inf) -> Callable[[str], int]:
    """The type of an option that is a whole number; ``what`` says so where it is none."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
        return int(text)

    return read


def number(
    what: str, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> Callable[[str], float]:
    """The same of any finite number."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= above or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
        return value

    return read


patches = whole_number("K is a number of patches, 0 or more")


def filled(kind: type[Value], args: argparse.Namespace, **others: object) -> Value:
    """The dataclass ``kind``, whose fields have the names of options but for ``others``."""
    named = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(args).items() if name in named} | others)


def shipped_for(args: argparse.Namespace) -> str:
    """The shipped model for a result ``--scale`` times as large: of that scale, or of the next larger one.

    Of those that the command has for it, or a mask-guided one where an option asks for what only these have, or one
    with such a quality.
    """
    asked = any(getattr(args, name, None) is not None for name in OF_MASKS)
    models: Mapping[int, str] = QUALITIES if _asks_for_less(args) else MASK_GUIDED if asked else args.shipped
    if args.scale is None:
        return models[max(models)]
    if args.scale > max(models):
        raise InputError(
            f"models ship for {', '.join(map(str, models))} times, so --scale {args.scale:g} needs --model FILE"
        )
    return models[min(one for one in models if one >= args.scale)]


def _asks_for_less(args: argparse.Namespace) -> bool:
    """Whether the quality of the picture that is asked for is one with which a part of it is refined."""
    given = getattr(args, "quality", None)
    return any(isinstance(one, str) and one != "whole" for one in (given if isinstance(given, list) else [given]))


def quality(text: str) -> int | str:
    """That of a file, a number, or that of the picture, a word."""
    if text.isascii() and text.isalpha():
        return text.lower()
    return whole_number("the quality is a whole number from 1 to 100, or a word", 1, 100)(text)


def bytes_of(text: str) -> int:
    try:
        return parse_memory(text)
    except InputError:
        message = f"a size is a number of bytes, or one such as 500KB or 2MB, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def add_amount_arguments(parser: argparse.ArgumentParser) -> None:
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--k", type=patches, metavar="N", help="refine N cells an image (default: what the model says)")
    share = number("the fraction is a share of the cells from 0 to 1", least=0, most=1)
    amount.add_argument("--fraction", type=share, metavar="F", help="refine this share of an image's cells, 0 to 1")


def add_model_arguments(parser: argparse.ArgumentParser, by_scale: Mapping[int, str] | None = None) -> None:
    """``by_scale``: how large the result is may be chosen, and by that one of these shipped models."""
    usual = by_scale[max(by_scale)] if by_scale else DEFAULT_MODEL
    parser.add_argument(
        "--model",
        default=None if by_scale else DEFAULT_MODEL,
        metavar="NAME|PATH",
        help=f"shipped model, or a file: ours or a published network (default {usual})",
    )
    if by_scale:
        parser.set_defaults(shipped=by_scale)
        add_size_arguments(parser, by_scale)
    add_amount_arguments(parser)
    add_device_arguments(parser)
    add_conventions(parser, "published networks, where their tensors do not tell")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16 (default auto)")


def add_conventions(parser: argparse.ArgumentParser, of: str) -> None:
    decide = parser.add_argument_group(of)
    decide.add_argument("--colour", metavar="C", help="what the network works on: rgb, ycbcr or y")
    decide.add_argument("--input-range", metavar="R", help="its values: 0..1, 0..255, of y 16..235, of ycbcr clipped")
    decide.add_argument("--model-scale", type=int, metavar="S", help="its scale")


def add_way_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=("masked", "dense", "auto"),
        help="masked (default, where there is a mask), dense: the Refine-Net or the whole network over everything, "
        "auto: the faster of both, measured once for each size",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "own", "openvino", "pytorch"),
        help="what runs the network: our own convolutions, OpenVINO or PyTorch (default: the first that can)",
    )


def add_size_arguments(parser: argparse.ArgumentParser, by_scale: Mapping[int, str]) -> None:
    """How large a result is; ``size_of`` reads it."""
    names = ", ".join(by_scale.values())
    parser.add_argument(
        "--scale",
        type=number("the scale is a number above 0, such as 2 or 1.5", above=0),
        metavar="S",
        help=f"enlarge S times, such as 2 or 1.5: by {names}, or by --model, whose result is shrunk to that",
    )
    size = word(parse_size)
    parser.add_argument("--size", type=size, metavar="WxH", help="as large as fits into so many pixels, as 3840x2160")
    pixels = whole_number("a side is a number of pixels above 0", 1)
    parser.add_argument("--width", type=pixels, metavar="W", help="so many pixels wide")
    parser.add_argument("--height", type=pixels, metavar="H", help="so many pixels high")


def size_of(args: argparse.Namespace) -> Size:
    """The size that the options of ``add_size_arguments`` ask for; InputError where they contradict each other."""
    given = [f"--{name}" for name in ("scale", "size", "width", "height") if getattr(args, name) is not None]
    if len(given) > 1 and given != ["--width", "--height"]:
        raise InputError(f"{args.command}: {' and '.join(given)} each say how large the result is; leave one out")
    width, height = args.size or (args.width, args.height)
    return Size(args.scale, width, height)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``--set`` for commands that take a configuration (``mga.settings.toml``)."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a field of the configuration, for example --set mask.iterations=2000 (repeatable)",
    )
