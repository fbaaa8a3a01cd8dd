"""Files that are given as checkpoints and must be refused: damaged, of something else, malicious, or of no network.

``FILES`` has the name of each and what makes its content, bytes, from the path of a canary: a file that its code, were
it run, would write. The tensors are those of a small MSRResNet.
"""

from __future__ import annotations

import copyreg
import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import originals
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

TERABYTE = 10**12
BLOCK = "recon_trunk.0.conv1.weight"


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def state(**changes: Tensor | None) -> dict[str, Tensor]:
    """A state dict that is taken; ``changes`` has "__" for "." in names, None for what is to be missing."""
    changed = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: t for name, t in (dict(originals.msrresnet(2)[0]) | changed).items() if t is not None}


def zipped(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def legacy(content: Any) -> bytes:
    return pickled(content, 2, False)


def pickled(content: Any, protocol: int, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.namelist():
            new.writestr(entry, change(entry, old.read(entry)))
    return buffer.getvalue()


def with_pickle(stream: bytes) -> bytes:
    """An archive as PyTorch writes it around these operations of a pickle."""
    return rezipped(zipped({}), lambda name, old: stream if name.endswith("data.pkl") else old)


def declaring(data: bytes, elements: int) -> bytes:
    """A file of one tensor with 1000 elements that now says it has so many."""
    number = b"M" + struct.pack("<H", 1000)
    assert number in data
    return data.replace(number, b"\x8a\x08" + elements.to_bytes(8, "little"))


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def ours(change: Callable[[dict[str, Tensor]], Any] = lambda tensors: None, **config: Any) -> bytes:
    """A file of our format whose configuration or tensors are changed."""
    network = MaskGuidedNetwork(ModelConfig("fsrcnn", 2))
    tensors = {name: t.contiguous() for name, t in network.state_dict().items()}
    change(tensors)
    facts = json.loads(network.config.to_json()) | config
    metadata = {"format": "mga_kernels", "config": json.dumps(facts), "licence": "{}", "training": "{}"}
    return save(tensors, metadata)


def authors(**changes: Tensor | None) -> bytes:
    """The layout of the mask-guided paper's authors."""
    network = MaskGuidedNetwork(ModelConfig("rfdn", 4, split=(1, 1)))
    names = {"mask.conv1": "mask.spa_mask_1.0", "mask.conv2": "mask.spa_mask_1.2"}
    tensors = {}
    for name, value in network.state_dict().items():
        old = next((old for old in names if name.startswith(old)), "")
        tensors[names.get(old, "") + name.removeprefix(old)] = value
    tensors |= {name.replace("__", "."): value for name, value in changes.items()}
    return zipped({name: value for name, value in tensors.items() if value is not None})


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return buffer.getvalue()


def entry(ending: str) -> bytes:
    """Of an archive with the state dict."""
    with zipfile.ZipFile(io.BytesIO(zipped(state()))) as whole:
        return whole.read(next(name for name in whole.namelist() if name.endswith(ending)))


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def references(depth: int = 60) -> bytes:
    """A pickle of lists of lists, each of which holds the one before twice: 2^60 elements in 300 bytes."""
    return b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(depth)) + b"."


def deep(depth: int = 100_000) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def copies(call: bytes, times: int = 2000, entries: int = 20_000) -> bytes:
    """A pickle that makes a dictionary once and many copies of it: 40 million entries in 200 KB."""
    pairs = b"".join(b"J" + i.to_bytes(4, "little") + b"K\x00" for i in range(entries))
    return b"\x80\x02" + b"ccollections\nOrderedDict\nq\x00(}q\x01(" + pairs + b"u]q\x02(" + call * times + b"el."


def with_counter(call: bytes) -> bytes:
    return copies(call).replace(b"OrderedDict", b"Counter")


def same_file(times: int = 1000) -> bytes:
    """A pickle that has a file of a megabyte once, and reads it very often."""
    data = legacy(torch.zeros(250_000).untyped_storage())
    bytes_of_it = b"B" + struct.pack("<I", len(data)) + data
    call = b"h\x00h\x01R"
    return b"\x80\x03ctorch.storage\n_load_from_bytes\nq\x00" + bytes_of_it + b"\x85q\x01](" + call * times + b"e."


def many_sides(sides: int = 100_000) -> bytes:
    """A tensor of one number and very many sides."""
    one, many = b"K\x01\x85q\x08K\x01\x85q\x09", b"(" + b"K\x01" * sides + b"t"

    def change(name: str, old: bytes) -> bytes:
        assert not name.endswith("data.pkl") or one in old
        return old.replace(one, many + many)

    return rezipped(zipped({"a": torch.zeros(1)}), change)


def dictionaries(depth: int = 20, width: int = 1000) -> bytes:
    """A pickle of dictionaries in each other, each of which holds the one before a thousand times."""
    keys = [b"X" + struct.pack("<I", 3) + b"%03d" % i for i in range(width)]
    stream = b"\x80\x02}q\x00"
    for level in range(depth):
        stream += b"}q" + bytes([level + 1]) + b"(" + b"".join(key + b"h" + bytes([level]) for key in keys) + b"u"
    return with_pickle(stream + b".")


def many_networks(number: int = 5000) -> bytes:
    one = torch.zeros(1)
    marks = ("conv_first.weight", "recon_trunk.0.conv1.weight")
    return zipped({f"n{i}.{mark}": one for i in range(number) for mark in marks})


def large_directory(entries: int = 500_000) -> bytes:
    """An archive of one empty file with a directory that names it very often."""
    data = archive({"m/data.pkl": b"}."})
    position, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = data[position:end] * entries
    counts = struct.pack("<HHIIH", entries % 65536, entries % 65536, len(directory), position, 0)
    return data[:position] + directory + data[end : end + 8] + counts


def by_extension() -> bytes:
    """os.system under a number of copyreg's registry."""
    copyreg.add_extension("posix", "system", 240)
    try:
        return pickle.dumps(Calls(os.system, "true"), protocol=2)
    finally:
        copyreg.remove_extension("posix", "system", 240)


def many_blocks(number: int = 20_000) -> bytes:
    """Names of very many blocks, all the same small tensor."""
    one = torch.zeros(1)
    return zipped(state() | {f"recon_trunk.{i}.conv1.bias": one for i in range(2, number)})


def overlapping() -> bytes:
    """An archive whose entries are all the same bytes of the file."""
    data = bytearray(archive({f"m/data/{i}": bytes(500) for i in range(100)} | {"m/data.pkl": b"."}))
    position = data.index(b"PK\x01\x02")
    while position >= 0:  # of each entry in the directory, the place where it begins
        data[position + 42 : position + 46] = bytes(4)
        position = data.find(b"PK\x01\x02", position + 4)
    cut = data.index(b"PK\x03\x04", 4)
    directory = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    data[end + 16 : end + 20] = struct.pack("<I", cut)
    return bytes(data[:cut] + data[directory:])


def command(canary: Path) -> str:
    return f"echo run > {canary}"


TAKEN = {"msrresnet.pth": lambda: zipped(state()), "msrresnet-legacy.pth": lambda: legacy(state())}
SIZE = len(zipped(state()))

EXECUTED: dict[str, Callable[[Path], bytes]] = {  # by pickle.load, that is
    "a call in an old file.pth": lambda c: pickle.dumps(Calls(os.system, command(c)), protocol=2),
    "a call by its name on the stack.pth": lambda c: pickle.dumps(Calls(os.system, command(c)), protocol=4),
    "a call of protocol 0.pth": lambda c: b"(S'" + command(c).encode() + b"'\niposix\nsystem\n.",
    "a call of eval.pt": lambda c: pickle.dumps(Calls(eval, f"open({str(c)!r}, 'w')"), protocol=2),
    "a call of exec.ckpt": lambda c: pickle.dumps(Calls(exec, f"open({str(c)!r}, 'w')"), protocol=2),
    "a call beside tensors.pth": lambda c: pickle.dumps({"params": {}, "x": Calls(os.system, command(c))}, protocol=2),
}

CODE: dict[str, Callable[[Path], bytes]] = {
    "a call in an archive.pth": lambda c: zipped(state() | {"x": Calls(os.system, command(c))}),
    "a call in an old file of tensors.pth": lambda c: legacy({"params": state(), "x": Calls(os.system, command(c))}),
    "a call named safetensors.safetensors": lambda c: pickle.dumps(Calls(os.system, command(c)), protocol=2),
    "a call under a number.pth": lambda c: by_extension(),
    "arrays.pth": lambda c: zipped({name: t.numpy() for name, t in state().items()}),
    "a module by name.pth": lambda c: with_pickle(b"\x80\x02ctorch.hub\nload\n."),
}

HARMLESS: dict[str, Callable[[Path], bytes]] = {  # what they ask for is not done, and the network in them is taken
    "settings of a program.ckpt": lambda c: zipped({"state_dict": state(), "hyper_parameters": Namespace(lr=1)}),
    "a call for 4 GB.pth": lambda c: zipped(state() | {"x": Calls(bytearray, 4 * 10**9)}),
    "a call that writes.pth": lambda c: zipped(state() | {"x": Calls(Path.touch, c)}),
    "a call of an attribute.pth": lambda c: zipped(state() | {"x": Calls(getattr, c, "touch")}),
    "a call of a library.pth": lambda c: zipped(state() | {"x": Calls(np.save, str(c), 1)}),
    "a call in an object.pth": lambda c: legacy([state(), Calls(map, Path.touch, [c])]),
    "a call by every protocol.pth": lambda c: pickled(state() | {"x": Calls(Path.write_text, c, "run")}, 4),
}

DAMAGED: dict[str, Callable[[Path], bytes]] = {
    "empty.pth": lambda c: b"",
    "empty.safetensors": lambda c: b"",
    "one byte.pth": lambda c: b"\x80",
    "zeros.pth": lambda c: bytes(4096),
    "noise.pth": lambda c: np.random.default_rng(0).bytes(4096),
    "half an archive.pth": lambda c: zipped(state())[: SIZE // 2],
    "an archive without its end.pth": lambda c: zipped(state())[:-40],
    "half an old file.pth": lambda c: (data := legacy(state()))[: len(data) // 2],
    "an old file without its end.pth": lambda c: legacy(state())[:-64],
    "half a safetensors file.safetensors": lambda c: (data := save(state()))[: len(data) // 2],
    "half a header.safetensors": lambda c: save(state())[:100],
    "eight bytes.safetensors": lambda c: save(state())[:8],
    "an archive of pickles.pth": lambda c: archive({"m/data.pkl": pickle.dumps({}), "m/version": b"3"}),
    "an archive of texts.pth": lambda c: archive({"m/readme.txt": b"weights"}),
    "an archive without its records.pth": lambda c: archive({"m/data.pkl": entry("data.pkl"), "m/version": b"3"}),
    "a page instead of a file.pth": lambda c: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "a pointer to a file.safetensors": lambda c: b"version 1\noid sha256:" + b"0" * 64 + b"\nsize 1755000\n",
    "a picture.pth": lambda c: picture(),
    "a packed file.pth": lambda c: gzip.compress(zipped(state())),
    "NaN.pth": lambda c: zipped(state(**{BLOCK.replace(".", "__"): torch.full((64, 64, 3, 3), float("nan"))})),
    "infinity.safetensors": lambda c: save(state(conv_last__bias=torch.tensor([0.0, float("inf"), 0.0]))),
    "NaN in ours.safetensors": lambda c: ours(lambda tensors: next(iter(tensors.values())).fill_(float("nan"))),
}

DECLARING: dict[str, Callable[[Path], bytes]] = {
    "a header of exabytes.safetensors": lambda c: safetensors({}, length=2**63),
    "a header of 90 MB.safetensors": lambda c: safetensors({}, length=90_000_000),
    "a tensor of terabytes.safetensors": lambda c: safetensors({"a": tensor([TERABYTE], 0, 4 * TERABYTE)}, bytes(16)),
    "a shape beyond 2^64.safetensors": lambda c: safetensors({"a": tensor([2**40, 2**40], 0, 16)}, bytes(16)),
    "a shape below zero.safetensors": lambda c: safetensors({"a": tensor([-4], 0, 16)}, bytes(16)),
    "a tensor beside its place.safetensors": lambda c: safetensors({"a": tensor([4], 8, 24)}, bytes(24)),
    "an unknown type.safetensors": lambda c: safetensors({"a": tensor([4], 0, 16, "Q9")}, bytes(16)),
    "a header that is a list.safetensors": lambda c: safetensors([1, 2]),
    "a header that is no text.safetensors": lambda c: safetensors(b"{" + bytes(range(128, 200))),
    "a storage of terabytes.pth": lambda c: rezipped(
        zipped({"a": torch.zeros(1000)}), lambda name, old: declaring(old, TERABYTE) if name.endswith(".pkl") else old
    ),
    "a storage of terabytes, old.pth": lambda c: declaring(legacy({"a": torch.zeros(1000)}), TERABYTE),
    "a storage of 8 GB, old.pth": lambda c: declaring(legacy({"a": torch.zeros(1000)}), 2 * 10**9),
    "one number as terabytes.pth": lambda c: zipped({"a": torch.zeros(1).expand(10**6, 10**6)}),
    "a storage by a call.pth": lambda c: zipped({"x": Calls(torch.FloatStorage, 2 * 10**9)}),
    "a sparse tensor.pth": lambda c: zipped({"a": torch.eye(3).to_sparse()}),
    "a tensor without values.pth": lambda c: zipped({"a": torch.empty(10**6, 10**6, device="meta")}),
    "an archive that grows.pth": lambda c: archive(
        {"m/data.pkl": b"\x80\x02}.", "m/data/0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED
    ),
    "an archive of the same bytes.pth": lambda c: overlapping(),
    "lists of lists.pth": lambda c: with_pickle(references()),
    "lists in lists.pth": lambda c: with_pickle(deep()),
    "copies of a dictionary.pth": lambda c: with_pickle(copies(b"h\x00h\x01\x85R")),
    "copies of a dictionary, by attributes.pth": lambda c: with_pickle(copies(b"h\x00)Rh\x01b")),
    "copies of a dictionary, old.pth": lambda c: copies(b"h\x00h\x01\x85R"),
    "copies by a counter.pth": lambda c: with_pickle(with_counter(b"h\x00h\x01\x85R")),
    "copies of the same arguments.pth": lambda c: with_pickle(copies(b"h\x00h\x01\x85q\x030h\x00h\x03R")),
    "an endless pickle.pkl": lambda c: b"\x80\x02" + b"N" * 20_000_000 + b".",
    "the same file in a file.pkl": lambda c: same_file(),
    "a tensor of many sides.pth": lambda c: many_sides(),
    "dictionaries in dictionaries.pth": lambda c: dictionaries(),
    "five thousand networks.pth": lambda c: many_networks(),
    "an archive of a large directory.pth": lambda c: large_directory(),
    "twenty thousand blocks.pth": lambda c: many_blocks(),
    "a billion blocks.safetensors": lambda c: ours(split=[10**9, 1]),
    "a wide network.safetensors": lambda c: ours(base={"shrunk": 10**12}),
}

OTHER: dict[str, Callable[[Path], bytes]] = {
    "a whole module.pth": lambda c: zipped(nn.Linear(2, 2)),
    "another network.pth": lambda c: zipped({"encoder.weight": torch.zeros(8, 3, 3, 3), "head.bias": torch.zeros(9)}),
    "renamed keys.pth": lambda c: zipped({f"layer{i}": t for i, t in enumerate(state().values())}),
    "a key too many.pth": lambda c: zipped(state(extra__weight=torch.zeros(3))),
    "a key too few.pth": lambda c: zipped(state(conv_last__bias=None)),
    "another width.safetensors": lambda c: save(state(**{BLOCK.replace(".", "__"): torch.zeros(32, 32, 3, 3)})),
    "no scale.pth": lambda c: zipped(state(upconv1__weight=torch.zeros(77, 7, 3, 3))),
    "no channels.pth": lambda c: zipped(state(upconv1__weight=torch.zeros(0, 0, 3, 3))),
    "one dimension.pth": lambda c: zipped({name: t.flatten() for name, t in state().items()}),
    "whole numbers.pth": lambda c: zipped({name: t.int() for name, t in state().items()}),
    "complex numbers.pth": lambda c: zipped({name: t + 0j for name, t in state().items()}),
    "numbers as keys.pth": lambda c: zipped(dict(enumerate(state().values()))),
    "a list.pth": lambda c: zipped(list(state().values())),
    "a tensor.pth": lambda c: zipped(torch.zeros(4)),
    "an optimiser.pth": lambda c: zipped({"state": {}, "param_groups": [{"lr": 0.1}]}),
    "an unknown network of ours.safetensors": lambda c: ours(network="transformer"),
    "an unknown scale of ours.safetensors": lambda c: ours(scale=7),
    "an unknown setting of ours.safetensors": lambda c: ours(refine={"depth": 3}),
    "a setting of another type.safetensors": lambda c: ours(base={"shrunk": "x"}),
    "another split of ours.safetensors": lambda c: ours(split=[2, 2]),
    "authors, no halves.pth": lambda c: authors(**{"refine__conv1__weight": None, "base__fea_conv__weight": None}),
    "authors, another mask.pth": lambda c: authors(mask__conv_kernel__weight=torch.zeros(9, 1, 1, 1)),
}

FILES = EXECUTED | CODE | DAMAGED | DECLARING | OTHER
