"""The ``mga`` command."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mga_kernels import __version__
from mga_kernels.errors import MGAError

from .notes import shown_notes
from .process import Stopped, exit_code, lasting_streams, lost_output, stoppable

SHIPPED = {2: "fsrcnn-x2", 3: "fsrcnn-x3", 4: "rfdn-x4"}  # by scale
DEFAULT_MODEL = SHIPPED[4]
# Subcommand -> module with add_arguments(parser) and run(args) -> exit code, imported only when it is used.
COMMANDS = {
    "upscale": ("mga.upscale", "upscale photographs"),
    "evaluate": ("mga.evaluate", "PSNR and SSIM on folders of HR images"),
    "complexity": ("mga.complexity.cli", "parameters and operations of a network"),
    "prepare": ("mga.prepare", "make a training set of folders of images"),
    "convert": ("mga.convert.cli", "make a published network mask-guided"),
    "train": ("mga.train.cli", "train a mask-guided network"),
    "ablate": ("mga.ablate", "the studies of section 4.4 of the paper"),
    "figures": ("mga.figures", "pictures of errors, results and masks"),
    "test-sets": ("mga.div8k", "make Test2K and Test4K of DIV8K"),
    "report": ("mga.report.cli", "an accelerated model beside its original, as one HTML page"),
    "export": ("mga.export", "write a model as ONNX, torch.export or ExecuTorch"),
    "info": ("mga.info", "the models, the operators and what each of them can run on here"),
}
_RUNS_A_MODEL = ("upscale", "evaluate", "figures")


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one sentence, not after a screen of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Where a command has ``--scale`` beside ``--model``, which is not given, the shipped model of that scale."""
        found, rest = super().parse_known_args(args, namespace)
        if getattr(found, "model", "") is None:
            found.model = DEFAULT_MODEL if found.scale is None else SHIPPED[found.scale]
        return found, rest


def _patches(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"K is a number of patches, 0 or more, got {text!r}")
    return int(text)


def _scale(text: str) -> int:
    if not text.isdecimal() or int(text) not in SHIPPED:
        raise argparse.ArgumentTypeError(f"models ship for {', '.join(map(str, SHIPPED))} times, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"the fraction is a share of the cells from 0 to 1, got {text!r}")
    return value


def _number(what: str, positive: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (positive and value <= 0):
            raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
        return value

    return parse


def add_photograph_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``mga upscale`` can choose besides the model: it runs photographs, the others run tensors."""
    parser.add_argument(
        "--threshold",
        type=_number("the threshold is a mask value, a number around 0 to 1", False),
        metavar="T",
        help="refine only cells whose predicted error is larger: 0 is none, 1 that of the worst cells (at most --k)",
    )
    parser.add_argument(
        "--max-ms",
        type=_number("the time is a number of milliseconds above 0", True),
        metavar="MS",
        help="refine as many cells as there is time for, measured once for each image size on this machine",
    )
    parser.add_argument(
        "--mode",
        choices=("masked", "dense", "auto"),
        help="masked (default, where there is a mask), dense: the Refine-Net or the whole network over everything, "
        "auto: the faster of both, measured once for each size",
    )


def add_amount_arguments(parser: argparse.ArgumentParser) -> None:
    share = parser.add_mutually_exclusive_group()
    share.add_argument("--k", type=_patches, metavar="N", help="refine N patches an image (default: the model's K)")
    share.add_argument("--fraction", type=_share, metavar="F", help="refine this share of an image's cells, 0 to 1")


def add_model_arguments(parser: argparse.ArgumentParser, by_scale: bool = False) -> None:
    """``by_scale``: a shipped model may be chosen by how many times it enlarges."""
    parser.add_argument(
        "--model",
        default=None if by_scale else DEFAULT_MODEL,
        metavar="NAME|PATH",
        help=f"shipped model, or a file: ours or a published network (default {DEFAULT_MODEL})",
    )
    if by_scale:
        names = ", ".join(SHIPPED.values())
        parser.add_argument(
            "--scale",
            type=_scale,
            metavar="S",
            help=f"enlarge 2, 3 or 4 times: {names}, or --model FILE, whose scale it is where the file does not tell",
        )
    add_amount_arguments(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16 (default auto)")
    decide = parser.add_argument_group("published networks, where their tensors do not tell")
    decide.add_argument("--colour", metavar="C", help="what the network works on: rgb, ycbcr or y")
    decide.add_argument("--input-range", metavar="R", help="its values: 0..1, 0..255, of y 16..235, of ycbcr clipped")
    decide.add_argument("--model-scale", type=int, metavar="S", help="its scale: 2, 3 or 4")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of ``command`` only: those of the others would cost their imports."""
    parser = _Parser(prog="mga", description="Mask-guided super-resolution: restore globally, refine locally.")
    parser.add_argument("--version", action="version", version=f"mga {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == command:
            if name in _RUNS_A_MODEL:
                add_model_arguments(sub, by_scale=name == "upscale")
            if name == "export":
                add_amount_arguments(sub)
            if name == "upscale":
                add_photograph_arguments(sub)
            importlib.import_module(module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0 done, 1 failed, 2 wrong arguments, 130, 143 or 129 ended by Ctrl-C, SIGTERM or SIGHUP, 141 its reader left.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with lasting_streams() as output, stoppable():
        stop = None
        try:
            code = _run(argv)
        except SystemExit as exit:  # of the parser
            stop, code = exit, int(exit.code or 0)
        if output is not None:
            output.flush()
            if output.fault is not None:
                code = lost_output(output.fault, code)
        if stop is not None:
            raise SystemExit(code)
        return code


def _run(argv: list[str]) -> int:
    command = next((word for word in argv if word in COMMANDS), None)
    try:
        parser = build_parser(command)
        if any(re.fullmatch(r"(-\w=|--[\w-]+=)?", word) for word in argv):
            parser.error("an argument is empty, as a variable of the shell that is not set is")
        args = parser.parse_args(argv)
        with shown_notes():
            return importlib.import_module(COMMANDS[args.command][0]).run(args)
    except MGAError as error:
        if os.environ.get("MGA_DEBUG") == "1":
            raise
        print(f"mga: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        if os.environ.get("MGA_DEBUG") == "1":
            raise
        print("mga: memory ran out; use a smaller image or close other programs", file=sys.stderr)
        return 1
    except OSError as error:
        if os.environ.get("MGA_DEBUG") == "1":
            raise
        name = f"{error.filename}: " if error.filename is not None else ""
        print(f"mga: {command}: {name}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        how = f"ended by {interrupt.signal.name}" if isinstance(interrupt, Stopped) else "interrupted"
        print(f"mga: {how}{': ' + str(interrupt) if str(interrupt) else ''}", file=sys.stderr)
        return exit_code(interrupt)


if __name__ == "__main__":
    sys.exit(main())
