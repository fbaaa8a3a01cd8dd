"""What the pickles of a PyTorch file ask for, read without executing them.

``torch.load(weights_only=True)`` runs no foreign code, but among what it allows are calls that take as much memory as
a file of a few bytes says, such as ``bytearray(10**12)``, or as often as a file repeats them, such as a copy of a large
dictionary. A state dict needs none of them, nor do the settings and numbers that a training keeps beside it.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

LEGACY_PICKLES = 5  # of a file that is no archive: magic number, version, system, contents, keys of the storages
NEEDED = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.storage \w+Storage"
    r"|torch (\w+Storage|Size|device|float32|float64|float16|bfloat16|u?int(8|16|32|64)|bool)|torch\.serialization \w*"
)
COPYING = ("collections OrderedDict", "collections Counter", "torch Size")  # what they are given, if it is anything
HIDDEN = ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST")  # their names are not in sight
MOST_OPERATIONS = 1_000_000  # of one pickle; that of a network with a thousand tensors has 30,000
MOST_SIDES = 64  # of a tensor, so many more than any has

# By the beginning of a module's name: what a file is that asks for something in it.
KINDS = (
    (
        r"(posix|nt|os|sys|subprocess|shutil|socket|runpy|webbrowser|commands|ctypes|pty|importlib|urllib|pickle)\b"
        r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|getattr|setattr|open|__import__|apply|input|breakpoint)\b",
        "a program in the guise of weights",
    ),
    (r"(pytorch_lightning|lightning\w*|lightning_fabric)\b", "a checkpoint of Lightning with objects of the training"),
    (r"numpy\b", "a checkpoint with values of NumPy"),
    (
        r"(argparse|omegaconf|yacs|easydict|addict|hydra|box|munch|ml_collections|pathlib|types|enum|datetime)\b",
        "a checkpoint with settings of the program that trained it",
    ),
    (r"torch\.optim\b", "a checkpoint with the optimiser of a training as an object"),
    (r"(torch|torchvision)\.(nn|fx|jit|ao|quantization|models|ops)\b", "a whole network as an object, not its tensors"),
)


def unneeded(path: Path) -> str | None:
    """The first thing that is named by the pickles of a file and that a state dict does not need, as module.name.

    ValueError, EOFError or another error of a damaged file where they cannot be read.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            return _first(stream for _ in range(LEGACY_PICKLES))
    with zipfile.ZipFile(path) as archive:
        return _first(archive.open(entry) for entry in archive.infolist() if entry.filename.endswith(".pkl"))


def kind_of_pickle(asked: str) -> str:
    """What a file is that asks for this (``unneeded``)."""
    return next((kind for pattern, kind in KINDS if re.match(pattern, asked)), "no plain dictionary of tensors")


def _first(streams: Iterable[IO[bytes]]) -> str | None:
    for stream in streams:
        found = _Reader().read(stream)
        if found is not None:
            return found
    return None


class _Reader:
    """Follows a pickle on a stack of what matters about its objects: names, and what was there before.

    An object is a name of a module ("module name"), NEW, made of what the file spells out here, NOTHING, the empty
    tuple, or OLD, from the memo: of such a one, a copy would cost more than its bytes in the file.
    """

    NEW, OLD, NOTHING, MARK = "new", "old", "nothing", "mark"

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.memo: dict[int, str] = {}

    def read(self, stream: IO[bytes]) -> str | None:
        for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MOST_OPERATIONS:
                return f"more than {MOST_OPERATIONS} operations"
            name = operation.name
            if name in HIDDEN:
                return f"an object by {name}"
            if name == "GLOBAL" and not NEEDED.fullmatch(str(argument)):
                return str(argument).replace(" ", ".")
            found = self._follow(name, argument)
            if found is not None:
                return found
        return None

    def _follow(self, name: str, argument: object) -> str | None:
        stack = self.stack
        if name == "GLOBAL":
            stack.append(str(argument))
        elif name == "MARK":
            stack.append(self.MARK)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            known = self.memo.get(int(str(argument)), self.OLD)
            stack.append(known if " " in known or known == self.NOTHING else self.OLD)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(str(argument))] = stack[-1] if stack else self.OLD
        elif name == "DUP":
            stack.append(self.OLD)
        elif name == "EMPTY_TUPLE":
            stack.append(self.NOTHING)
        elif name in ("REDUCE", "NEWOBJ"):
            given, called = self._pop(), self._pop()
            if given == self.OLD and called in COPYING:
                return f"copies by {called.replace(' ', '.')}"
            stack.append(self.NEW)
        elif name == "BUILD":
            if self._pop() == self.OLD:
                return "copies of its own contents"
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"):
            items = self._to_mark() if name == "TUPLE" else [self._pop() for _ in range(int(name[-1]))]
            if len(items) > MOST_SIDES:
                return f"a tuple of {len(items)} items"
            stack.append(self.OLD if self.OLD in items else self.NEW)
        elif name in ("SETITEMS", "APPENDS", "ADDITEMS", "POP_MARK"):
            self._to_mark()
        elif name in ("LIST", "DICT", "FROZENSET"):
            self._to_mark()
            stack.append(self.NEW)
        elif name in ("APPEND", "POP", "STOP"):
            self._pop()
        elif name == "SETITEM":
            del self.stack[-2:]
        elif name in ("PERSID", "BINPERSID"):
            if name == "BINPERSID":
                self._pop()
            stack.append(self.NEW)
        elif name not in ("PROTO", "FRAME"):  # what is left are values
            stack.append(self.NEW)
        return None

    def _pop(self) -> str:
        return self.stack.pop() if self.stack else self.OLD

    def _to_mark(self) -> list[str]:
        items = []
        while self.stack and (item := self.stack.pop()) != self.MARK:
            items.append(item)
        return items
