"""The ``mga`` command."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from mga_kernels import __version__
from mga_kernels.errors import InputError, MGAError, reason_of

from .commands.options import shipped_for
from .console.debug import debugging
from .console.failures import unexpected
from .console.lines import one_line
from .console.loading import loading
from .console.notes import shown_notes
from .console.process import Stopped, exit_code, lasting_streams, lost_output, stoppable

# Subcommand -> module with add_arguments(parser) and run(args) -> exit code, imported only when it is used.
COMMANDS = {
    "upscale": ("mga.commands.upscale", "upscale photographs"),
    "video": ("mga.commands.video", "upscale a video"),
    "cluster": ("mga.commands.cluster", "upscale photographs on many machines, by Ray"),
    "ui": ("mga.commands.ui", "a page in the browser that upscales photographs, on this machine"),
    "evaluate": ("mga.commands.evaluate", "PSNR and SSIM on folders of HR images"),
    "complexity": ("mga.commands.complexity", "parameters and operations of a network"),
    "prepare": ("mga.commands.prepare", "make a training set of folders of images"),
    "convert": ("mga.commands.convert", "make a published network mask-guided"),
    "train": ("mga.commands.train", "train a mask-guided network"),
    "ablate": ("mga.commands.ablate", "the studies of section 4.4 of the paper"),
    "figures": ("mga.commands.figures", "pictures of errors, results and masks"),
    "test-sets": ("mga.commands.test_sets", "make Test2K and Test4K of DIV8K"),
    "report": ("mga.commands.report", "an accelerated model beside its original, as one HTML page"),
    "export": ("mga.commands.export", "write a model as ONNX, torch.export or ExecuTorch"),
    "models": ("mga.commands.shipped", "the models that come with it: for what, how good, how fast here"),
    "info": ("mga.commands.info", "the models, the operators and what each of them can run on here"),
}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one sentence, not after a screen of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Where a command has ``--scale`` beside ``--model``, which is not given, the shipped model for that scale."""
        found, rest = super().parse_known_args(args, namespace)
        if getattr(found, "shipped", None) and found.model is None:
            try:
                found.model = shipped_for(found)
            except InputError as error:
                self.error(str(error))
        return found, rest


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of ``command`` only: those of the others would cost their imports."""
    parser = _Parser(prog="mga", description="Mask-guided super-resolution: restore globally, refine locally.")
    parser.add_argument("--version", action="version", version=f"mga {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == command:
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
        with loading():
            parser = build_parser(command)
        if any(re.fullmatch(r"(-\w=|--[\w-]+=)?", word) for word in argv):
            parser.error("an argument is empty, as a variable of the shell that is not set is")
        args = parser.parse_args(argv)
        with shown_notes():
            return importlib.import_module(COMMANDS[args.command][0]).run(args)
    except (MGAError, MemoryError, OSError) as error:
        if debugging():
            raise
        print(f"mga: {one_line(_sentence(error, command))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        how = f"ended by {interrupt.signal.name}" if isinstance(interrupt, Stopped) else "interrupted"
        print(f"mga: {how}{': ' + str(interrupt) if str(interrupt) else ''}", file=sys.stderr)
        return exit_code(interrupt)
    except Exception as error:  # a fault of ours: a sentence says it as well as a screen of code
        if debugging():
            raise
        print(f"mga: {one_line(unexpected(str(command), error))}", file=sys.stderr)
        return 1


def _sentence(error: Exception, command: str | None) -> str:
    if isinstance(error, MGAError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory ran out; use a smaller image or close other programs"
    name = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
    return f"{command}: {name}{reason_of(error)}"


if __name__ == "__main__":
    sys.exit(main())
