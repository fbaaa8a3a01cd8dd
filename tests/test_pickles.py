"""Files that trainings leave: whatever objects are in one, the network is found, and nothing of them is made or run."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import pickletools
import struct
import sys
import types
import warnings
import zipfile
from typing import Any, NamedTuple

import numpy as np
import originals
import pytest
import torch
from hostile_files import Calls, legacy, pickled, rezipped, zipped
from torch import Tensor, nn

from mga_kernels.checkpoints import load_checkpoint, pickles, read_state_dict
from mga_kernels.errors import CheckpointError

NETWORK: dict[str, Tensor] = dict(originals.msrresnet(2)[0])


class Attributes(dict):
    """As easydict, addict and others have them: items that are attributes too."""

    def __init__(self, **items: Any):
        super().__init__(items)
        self.__dict__.update(items)


class Node:
    """A configuration whose parts know what they are part of."""

    def __init__(self, parent: Node | None = None, parts: int = 0):
        self.parent = parent
        self.content = {f"part {number}": Node(self, parts // 3) for number in range(parts)}


class Slots:
    __slots__ = ("weights",)


class Mode(enum.Enum):
    TRAIN = "train"


class Point(NamedTuple):
    x: int
    y: int


class Part(nn.Module):
    """A network of others' code, made of the names of its tensors."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        self.settings, self.act = argparse.Namespace(nf=8), nn.ReLU()
        for name in dict.fromkeys(name.partition(".")[0] for name in state):
            inner = {key.partition(".")[2]: t for key, t in state.items() if key.partition(".")[0] == name}
            if "" in inner:
                self.register_parameter(name, nn.Parameter(inner[""]))
            else:
                self.add_module(name, Part(inner))


OBJECTS: dict[str, Any] = {
    "a Namespace": argparse.Namespace(lr=1e-4, scale=2, resume=None, inner=argparse.Namespace(gpus=[0, 1])),
    "NumPy's numbers": {"best": np.float64(31.4), "losses": [np.float32(1), np.int64(2)], "rng": np.zeros(624)},
    "dictionaries": {"a": collections.defaultdict(list, {"b": [1]}), "o": collections.OrderedDict(c=2)},
    "counts": collections.Counter("abca"),
    "paths": [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("a/b")],
    "items that are attributes": Attributes(lr=1, inner=Attributes(beta=0.9)),
    "parts that know their parents": Node(parts=20),
    "times": [datetime.datetime(2020, 1, 2), datetime.timedelta(3), Mode.TRAIN, Point(1, 2)],
    "plain things": [{1, 2}, frozenset((3,)), b"bytes", bytearray(b"x"), 1j, range(3), slice(1, 2), ..., None, 10**40],
    "functions": [functools.partial(torch.add, 1), print, torch.relu, np.mean, Part],
    "keys of any kind": {(1, 2): 3, None: 4, Point(0, 0): 5, 1.5: 6},
    "PyTorch's": [torch.device("cpu"), torch.float16, torch.Size((1, 2)), torch.Generator().get_state()],
    "an optimiser": torch.optim.Adam([nn.Parameter(torch.ones(2))], betas=(0.5, 0.9)),
    "a schedule": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1), 3),
    "a loss": nn.Sequential(nn.L1Loss(), nn.Conv2d(3, 4, 3)),
    "a class in a dictionary": types.SimpleNamespace(network="net"),
}
HELD: dict[str, Any] = {
    "a whole network": Part(NETWORK),
    "one beside other things": {"epoch": 3, "model": Part(NETWORK)},
    "one in another": {"model": nn.DataParallel(Part(NETWORK))},
    "in a Namespace": argparse.Namespace(net=NETWORK, lr=0.1),
    "in items that are attributes": Attributes(state_dict=NETWORK),
    "in a defaultdict": collections.defaultdict(dict, {"params": NETWORK}),
    "as parameters": collections.OrderedDict((name, nn.Parameter(tensor)) for name, tensor in NETWORK.items()),
}
WRITERS = {
    **{f"no file of PyTorch {p}": lambda c, p=p: pickle.dumps(c, p) for p in (2, 4)},
    "archive": zipped,
    "old": legacy,
    **{f"archive {p}": lambda c, p=p: pickled(c, p) for p in (1, 3, 4, 5)},
    **{f"old {p}": lambda c, p=p: pickled(c, p, False) for p in (3, 4)},
}


def same(path: pathlib.Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_state_dict(path)
        assert load_checkpoint(path).config.network == "msrresnet"
    return found.keys() == NETWORK.keys() and all(torch.equal(found[name], NETWORK[name]) for name in NETWORK)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", OBJECTS)
def test_what_a_training_keeps_beside_its_network(tmp_path, name, writer):
    path = tmp_path / "net.pth"
    path.write_bytes(WRITERS[writer]({"args": OBJECTS[name], "state_dict": NETWORK, "more": OBJECTS[name]}))
    assert same(path)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", HELD)
def test_objects_that_hold_the_network(tmp_path, name, writer):
    path = tmp_path / "net.pth"
    path.write_bytes(WRITERS[writer](HELD[name]))
    assert same(path)


def test_slots(tmp_path):
    slots = Slots()
    slots.weights = NETWORK
    (tmp_path / "net.pth").write_bytes(zipped(slots))
    assert same(tmp_path / "net.pth")


@pytest.mark.parametrize("write", [zipped, legacy])
def test_no_class_of_a_file_is_imported(tmp_path, monkeypatch, write):
    """Nor looked for: those of programs that are not here are read, too."""
    elsewhere = types.ModuleType("elsewhere")
    elsewhere.Settings = type("Settings", (), {"__module__": "elsewhere"})
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    path = tmp_path / "net.pth"
    path.write_bytes(write({"params": NETWORK, "options": elsewhere.Settings()}))
    del sys.modules["elsewhere"]
    assert same(path)
    path.write_bytes(write({"a": 1}))
    with pytest.raises(CheckpointError, match="holds no dictionary of tensors"):
        load_checkpoint(path)


def test_texts_of_python_2(tmp_path):
    """Its strings are bytes, and its ordered dictionaries are made of a list of pairs."""
    path = tmp_path / "net.pth"

    def older(name: str, data: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return data
        operations = [*pickletools.genops(data)]
        result = b""
        for (operation, argument, at), (*_, following) in zip(operations, [*operations[1:], (len(data),)], strict=True):
            text = argument.encode() if operation.name == "BINUNICODE" else b""
            result += struct.pack("BB", ord("U"), len(text)) + text if text else data[at:following]
        assert b"X" + struct.pack("<I", 10) not in result
        return result

    path.write_bytes(rezipped(zipped(NETWORK), older))
    assert same(path)
    pairs = b"".join(b"(X" + struct.pack("<I", 1) + letter + b"K\x01l" for letter in (b"a", b"b"))
    reader = pickles._InOneStream(0)
    assert reader.read(io.BytesIO(b"\x80\x02ccollections\nOrderedDict\n(" + pairs + b"l\x85R.")) == {"a": 1, "b": 1}


def test_numbers_of_a_machine_with_the_other_order_of_bytes(tmp_path):
    mixed = NETWORK | {"conv_last.weight": NETWORK["conv_last.weight"].double(), "epoch": torch.tensor(3)}
    sizes: dict[str, int] = {}
    path = tmp_path / "net.pth"
    path.write_bytes(zipped(mixed))
    with zipfile.ZipFile(path) as archive:
        for number, tensor in enumerate(mixed.values()):
            sizes[next(n for n in archive.namelist() if n.endswith(f"/data/{number}"))] = tensor.element_size()

    def turned(name: str, data: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        size = sizes.get(name, 1)
        return b"".join(data[at : at + size][::-1] for at in range(0, len(data), size))

    path.write_bytes(rezipped(path.read_bytes(), turned))
    found = read_state_dict(path)
    assert all(torch.equal(found[name], mixed[name]) for name in NETWORK)


def test_sums_of_bytes(tmp_path):
    """A wrong one is of a damaged file; without them, as PyTorch can be told to write, it is read."""
    path, before = tmp_path / "net.pth", torch.serialization.get_crc32_options()
    torch.save(NETWORK, path)
    data = path.read_bytes()
    at = data.index(NETWORK["conv_last.weight"].numpy().tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(CheckpointError, match=r"is damaged .*CRC"):
        load_checkpoint(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(NETWORK, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert same(path)


def test_tensors_are_those_that_pytorch_reads(tmp_path):
    """Of any type, views of shared numbers among them."""
    numbers = torch.arange(60.0)
    content = {
        **{str(dtype): torch.arange(6).to(dtype).view(2, 3) for dtype in pickles.DTYPES.values()},
        "turned": numbers.view(3, 20).t(),
        "a part": numbers[7:31:3],
        "again": numbers[7:31].view(4, 6)[1:, ::2],
        "no numbers": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        "spread": torch.ones(1).expand(4),
        "a parameter": nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    }
    path = tmp_path / "net.pth"
    path.write_bytes(zipped(content))
    expected = torch.load(path)
    for write in (zipped, legacy):
        path.write_bytes(write(content))
        found, asked = pickles.read_pickle(path)
        assert asked is None
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride()), name
            one, other = (t.detach().contiguous().flatten().view(torch.uint8) for t in (found[name], tensor))
            assert torch.equal(one, other), name


def test_storages_of_another_size(tmp_path):
    path, one = tmp_path / "net.pth", (1).to_bytes(8, "little")
    path.write_bytes(legacy({"a": torch.zeros(1000)}).replace((1000).to_bytes(8, "little"), one))
    with pytest.raises(ValueError, match="another size"):
        pickles.read_pickle(path)


def test_views_of_the_first_releases(tmp_path):
    """Storages that are parts of others."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", 10, ("1", 3, 4)) if thing is ... else None

    stream = io.BytesIO()
    rebuilt = Calls(torch._utils._rebuild_tensor, ..., 1, (2,), (1,))
    for content in (pickles.MAGIC, 1001, {"little_endian": True}, {"a": rebuilt}, ["0"]):
        Pickler(stream, 2).dump(content)
    numbers = np.arange(10, dtype=np.float32)
    (tmp_path / "net.pth").write_bytes(stream.getvalue() + (10).to_bytes(8, "little") + numbers.tobytes())
    content, _ = pickles.read_pickle(tmp_path / "net.pth")
    assert content["a"].tolist() == [4, 5]


def test_parameters_of_the_first_releases():
    """An object that is called with its tensor, and then given attributes."""
    called = b"\x80\x02ctorch.nn.parameter\nParameter\nK\x07\x85R(\x89\x89Ntb."
    assert pickles._InOneStream(0).read(io.BytesIO(called)) == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.ones(3), "a checkpoint with values of NumPy: it asks for numpy"),
        ({"args": argparse.Namespace(lr=1)}, "a checkpoint with settings of the program that trained it: it asks for"),
        ({"epoch": 3, "lr": 0.1}, "holds no dictionary of tensors"),
    ],
)
def test_files_without_tensors(tmp_path, content, said):
    path = tmp_path / "net.pth"
    path.write_bytes(zipped(content))
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)
