"""Reading the pickles of a PyTorch file without executing them: no name in one is ever looked up, imported or called.

A pickle is a list of operations that put objects together. Here they make numbers, texts, lists, dictionaries and, of
the functions that PyTorch saves tensors by, tensors. Any other object, such as the settings of a training, a value of
NumPy or a whole network, becomes a dictionary of its attributes and items, in which tensors are found like elsewhere.
What a few bytes could make large is never copied more often than ``MOST_COPIED`` says, and no tensor is larger than
what the file holds.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file that is no archive; before version, system, content, keys
MOST_OPERATIONS = 1_000_000  # of one pickle; that of a network with a thousand tensors has 30,000
MOST_COPIED = 200_000  # entries that objects take from dictionaries that are there already
FILE_IS_HELD = 3  # times at most: as texts, as the bytes that they were made of, as numbers
MOST_SIDES = 64  # of a tensor, so many more than any has
DTYPES = {
    f"torch {name}": getattr(torch, name)
    for name in (
        "float16 bfloat16 float32 float64 uint8 int8 int16 int32 int64 bool complex64 complex128 uint16 uint32 uint64 "
        "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
    ).split()
}
STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
GIVEN_BACK = (  # what is made by them is their first argument, as far as it matters here
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor",
    "torch.nn.parameter Parameter",
    "torch.autograd.variable Variable",
)
OF_TENSORS = re.compile(
    r"collections OrderedDict|_codecs encode|torch(\.(_utils|_tensor|cuda|nn\.parameter|serialization|storage))? \w+"
)
PROGRAM = re.compile(
    r"(posix|nt|os|sys|subprocess|shutil|socket|runpy|webbrowser|commands|ctypes|pty|importlib|urllib|pickle)\b"
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|__import__|apply|input|breakpoint)\b"
)
# By the beginning of a module's name: what a file is that has objects of it and no tensors.
KINDS = (
    (r"(pytorch_lightning|lightning\w*|lightning_fabric)\b", "a checkpoint of Lightning with objects of the training"),
    (r"numpy\b", "a checkpoint with values of NumPy"),
    (
        r"(argparse|omegaconf|yacs|easydict|addict|hydra|box|munch|ml_collections|pathlib|types|enum|datetime)\b",
        "a checkpoint with settings of the program that trained it",
    ),
    (r"torch\.optim\b", "a checkpoint with the optimiser of a training as an object"),
    (r"(torch|torchvision)\.(nn|fx|jit|ao|quantization|models|ops)\b", "a whole network as an object, not its tensors"),
)


TOGETHER = frozenset(
    "TUPLE TUPLE1 TUPLE2 TUPLE3 LIST DICT FROZENSET SETITEM SETITEMS APPEND APPENDS ADDITEMS GLOBAL STACK_GLOBAL INST "
    "OBJ REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID".split()
)


class Refused(Exception):
    """Of a file whose pickle asks for what no checkpoint needs; says what that is, as module.name."""


class Name(str):
    """ "module name": of something in a program, which stays a text."""


def read_pickle(path: Path) -> tuple[object, str | None]:
    """What a PyTorch file holds, and the first object in it, as module.name, that is no tensor.

    Refused, or ValueError, EOFError or any other error of a damaged file.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            old = _InOneStream(size)
            return old.read_all(stream), old.asked
    with zipfile.ZipFile(path) as archive:
        reader = _InArchive(archive, size)
        return reader.read_all(), reader.asked


def kind_of_pickle(asked: str) -> str:
    """What a file without tensors is that asks for this."""
    if PROGRAM.match(asked):
        return "a program in the guise of weights"
    return next((kind for pattern, kind in KINDS if re.match(pattern, asked)), "no plain dictionary of tensors")


class _Reader(ABC):
    """Follows a pickle. ``asked`` is the first name in it that tensors do not need."""

    def __init__(self, size: int) -> None:
        self.left, self.copies = FILE_IS_HELD * size, MOST_COPIED
        self.asked: str | None = None
        self.stored: dict[str, Tensor] = {}

    def read(self, stream: IO[bytes]) -> Any:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[object, Any] = {}
        for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MOST_OPERATIONS:
                raise Refused(f"more than {MOST_OPERATIONS} operations")
            if operation.name == "STOP":
                return self.stack.pop()
            self._follow(operation.name, argument)
        raise EOFError("it has no end")

    def _follow(self, operation: str, argument: Any) -> None:
        """An operation that moves what is there, or adds a value; others are ``_put_together``."""
        stack = self.stack
        match operation:
            case "PROTO" | "FRAME" | "READONLY_BUFFER":
                pass
            case "PERSID" | "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER":
                raise Refused(f"an object by {operation}")
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "POP_MARK":
                self._items()
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case _ if operation in TOGETHER:
                self._put_together(operation, argument)
            case _:
                stack.append(argument)

    def _put_together(self, operation: str, argument: Any) -> None:
        stack = self.stack
        match operation:
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(operation[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                items = self._items()
                self.stack.append(tuple(items))
            case "LIST" | "FROZENSET":
                items = self._items()
                self.stack.append(items)
            case "DICT":
                items = self._items()
                self.stack.append({})
                self._set(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._items())
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = [stack.pop()] if operation == "APPEND" else self._items()
                if isinstance(self.stack[-1], list):
                    self.stack[-1].extend(items)
            case "GLOBAL":
                stack.append(self._named(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._named(f"{module} {name}"))
            case "INST" | "OBJ":
                items = self._items()
                self.stack.append(self._made(self._named(argument) if operation == "INST" else items[0], ()))
            case "REDUCE" | "NEWOBJ":
                given, called = stack.pop(), stack.pop()
                stack.append(self._made(called, given))
            case "NEWOBJ_EX":
                del stack[-3:]
                stack.append({})
            case "BUILD":
                self._fill(stack.pop())
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))

    def _items(self) -> list[Any]:
        """Those after the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _set(self, items: list[Any]) -> None:
        """Pairs of keys and values into the dictionary on top. Keys that are not plain name no tensor."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str | int))

    def _fill(self, state: object) -> None:
        """Attributes, those in slots too, of the object on top; a list or a tensor has none that matter."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict) and isinstance(self.stack[-1], dict):
                self._spend(len(part))
                self.stack[-1].update(part)

    def _spend(self, entries: int) -> None:
        self.copies -= entries
        if self.copies < 0:
            raise Refused(f"more than {MOST_COPIED} copies of its own contents")

    def _named(self, text: str) -> Name:
        shown = text.replace(" ", ".")
        if PROGRAM.match(shown):
            raise Refused(shown)
        if self.asked is None and not OF_TENSORS.fullmatch(text):
            self.asked = shown
        return Name(text)

    def _made(self, called: object, given: Any) -> Any:
        """What the call of a name makes: a tensor, or a dictionary that is filled later."""
        if not isinstance(called, Name):
            return {}
        if called in GIVEN_BACK:
            return given[0]
        if called == "torch._tensor _rebuild_from_type_v2":  # a function, a class, what that is given, attributes
            return self._made(given[0], given[2])
        if called == "_codecs encode":  # bytes, before pickles had any
            self._take(len(given[0]))
            return given[0].encode("latin1")
        if called == "torch.storage _load_from_bytes":  # a file in a pickle that is not PyTorch's
            self._take(len(given[0]))
            return _InOneStream(len(given[0])).read_all(io.BytesIO(given[0]))
        if called.startswith("torch._utils _rebuild_"):
            return self._tensor(called, given)
        if called == "collections OrderedDict" and given:  # pairs, as Python 2 wrote them
            self._spend(len(given[0]))
            return {key: value for key, value in given[0] if isinstance(key, str | int)}
        return {}

    def _tensor(self, called: Name, given: Any) -> Tensor:
        """(storage, offset, size, stride, ...); of one that is not that ordinary, one without values."""
        kind = called.removeprefix("torch._utils _rebuild_tensor")
        if kind not in ("", "_v2", "_v3") or given[0] is None:
            return torch.empty(0, device="meta")
        storage, offset, size, stride = given[:4]
        if len(size) > MOST_SIDES:
            raise Refused(f"a tensor of {len(size)} sides")
        if kind == "_v3":
            storage = storage.view(DTYPES[given[6]])
        return storage.as_strided(size, stride, storage.storage_offset() + offset)

    def _persistent(self, given: Any) -> Tensor | Name | None:
        """What lies beside a pickle: a storage as a vector, None of an unknown type. Old files have programs, too."""
        what, kind, *rest = given
        if what == "module":
            return kind
        if what != "storage":
            raise Refused("an object by BINPERSID")
        name = kind.rpartition(" ")[2].removesuffix("Storage")
        if name not in STORAGES:
            return None
        key, _, count, *view = rest
        dtype = STORAGES[name]
        if key not in self.stored:
            self.stored[key] = self._storage(key, dtype, count)
        storage = self.stored[key]
        if view and view[0] is not None:
            _, offset, count = view[0]
            storage = storage[offset : offset + count]
        return storage

    def _room(self, dtype: torch.dtype, count: int) -> Tensor:
        """A vector of so many numbers."""
        self._take(count * dtype.itemsize)
        return torch.empty(count, dtype=dtype)

    def _take(self, size: int) -> None:
        """So many bytes of memory; ValueError beyond what a file is given for its size."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise ValueError("it declares more memory than it has")

    @abstractmethod
    def _storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """The numbers of this name, a vector."""


class _InArchive(_Reader):
    """An archive with a pickle, and an entry for each storage."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        super().__init__(size)
        self.archive = archive
        for entry in archive.infolist():
            if entry.CRC == 0:  # PyTorch can be told to compute none; without one nothing is compared
                del entry.CRC
        names = archive.namelist()
        self.folder = next(name for name in names if name.rpartition("/")[2] == "data.pkl").removesuffix("data.pkl")
        order = f"{self.folder}byteorder"
        self.turned = order in names and archive.read(order) == b"big"

    def read_all(self) -> Any:
        return self.read(io.BytesIO(self.archive.read(f"{self.folder}data.pkl")))

    def _storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        data = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        storage = self._room(dtype, len(data) // dtype.itemsize)
        return _filled(storage, data, self.turned)


class _InOneStream(_Reader):
    """Pickles one after the other, and behind them the storages; or any pickle, whose tensors are in it."""

    def read_all(self, stream: IO[bytes]) -> Any:
        first = self.read(stream)
        if first != MAGIC:
            return first
        _, system, content, keys = [self.read(stream) for _ in range(4)]
        turned = system.get("little_endian") is False
        for key in keys:
            storage = self.stored[key]
            count = int.from_bytes(stream.read(8), "big" if turned else "little")
            if count != storage.numel():
                raise ValueError("a storage has another size than it was said to have")
            _filled(storage, bytearray(stream.read(count * storage.itemsize)), turned)
        return content

    def _storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        return self._room(dtype, count)


def _filled(storage: Tensor, data: bytearray, turned: bool) -> Tensor:
    """A vector with these bytes, ``turned`` of each number where they are of a machine with the other order."""
    if data:
        found = torch.frombuffer(data, dtype=torch.uint8).view(-1, storage.itemsize)
        storage.view(torch.uint8).view(-1, storage.itemsize).copy_(found.flip(1) if turned else found)
    return storage
