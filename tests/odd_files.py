"""Files of networks that people share, each with one fault: what is to be refused in a sentence.

``FAULTS`` has faults of state dicts by name, ``BYTES`` of the files that hold them, ``GRAPHS`` of ncnn's graphs.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import local_originals as originals
import ncnn_files
import torch
from originals import rcan as basicsr_rcan
from safetensors.torch import save
from torch import Tensor

State = dict[str, Tensor]
HUGE = 2**31 - 1


def _rrdbnet(**settings: int) -> State:
    return dict(originals.rrdbnet(blocks=1, **settings)[0])


STATES: dict[str, Callable[[], State]] = {
    "rrdbnet": _rrdbnet,
    "rrdbnet-plus": lambda: originals.esrgan(_rrdbnet(plus=True), 2, 1),
    "esrgan": lambda: originals.esrgan(_rrdbnet(), 2, 1),
    "bsrgan": lambda: originals.bsrgan(_rrdbnet(enlargements=1)),
    "x2plus": lambda: _rrdbnet(unshuffled=2),
    "compact": lambda: dict(originals.compact(2)[0]),
    "span": lambda: dict(originals.span(2)[0]),
    "span-folded": lambda: originals.span_folded(originals.span(2)[0]),
    "edsr": lambda: dict(originals.edsr(2, False)[0]),
    "edsr-basicsr": lambda: dict(originals.edsr(2, True)[0]),
    "rcan": lambda: dict(originals.rcan(2)[0]),
    "rcan-basicsr": lambda: dict(basicsr_rcan(2, True)[0]),
}
FAULTS: dict[str, Callable[[State], State]] = {}
BYTES: dict[str, Callable[[State], bytes]] = {}
GRAPHS: dict[str, Callable[[str, bytes], tuple[str, bytes | None]]] = {}


def middle(state: State) -> str:
    """A 3x3 convolution in the middle."""
    names = [name for name, tensor in state.items() if name.endswith("weight") and tuple(tensor.shape[2:]) == (3, 3)]
    return names[len(names) // 2]


def changed(change: Callable[[Tensor], Tensor], bias: bool = False) -> Callable[[State], State]:
    def apply(state: State) -> State:
        name = middle(state)
        name = name.removesuffix("weight") + "bias" if bias else name
        return state | {name: change(state[name])}

    return apply


FAULTS |= {
    "one output less": changed(lambda weight: weight[1:]),
    "one input less": changed(lambda weight: weight[:, 1:]),
    "5x5": changed(lambda weight: torch.nn.functional.pad(weight, (1, 1, 1, 1))),
    "1x1": changed(lambda weight: weight[:, :, :1, :1]),
    "3x1": changed(lambda weight: weight[:, :, :, :1]),
    "no channels": changed(lambda weight: weight[:0]),
    "a vector": changed(lambda weight: weight[0, 0, 0]),
    "a number": changed(lambda weight: weight[0, 0, 0, 0]),
    "five dimensions": changed(lambda weight: weight[None]),
    "a bias of one more": changed(lambda bias: torch.cat([bias, bias[:1]]), bias=True),
    "a bias of two dimensions": changed(lambda bias: bias[None], bias=True),
    "complex numbers": changed(lambda weight: weight.to(torch.complex64)),
    "no bias": lambda state: {n: t for n, t in state.items() if n != middle(state).removesuffix("weight") + "bias"},
    "no weight": lambda state: {n: t for n, t in state.items() if n != middle(state)},
    "no last weight": lambda state: dict(list(state.items())[:-2]),
    "NaN": changed(lambda weight: torch.where(weight == weight.max(), float("nan"), weight)),
    "infinity": changed(lambda bias: torch.full_like(bias, float("inf")), bias=True),
    "a stranger": lambda state: state | {"more.weight": torch.zeros(3)},
    "a name with a line's end": lambda state: state | {"a\nb\x1b[2J.weight": torch.zeros(3)},
    "a long name": lambda state: state | {"a" * 100_000: torch.zeros(3)},
    "another name": lambda state: {(n + "s" if n == middle(state) else n): t for n, t in state.items()},
    "a block of number 999999999": lambda state: _numbered(state, "999999999"),
    "a block of number 10^30": lambda state: _numbered(state, "9" * 30),
    "a block of number 7": lambda state: _numbered(state, "7"),
    "integers in place of all": lambda state: {name: (100 * t).to(torch.int32) for name, t in state.items()},
}


def _numbered(state: State, number: str) -> State:
    """A tensor more, of a block that is far from the others."""
    name = next(name for name in state if re.search(r"\.0\.|_2\.", name) and "weight" in name)
    found = re.search(r"(?<=\.)0(?=\.)|(?<=_)2(?=\.)", name)
    assert found is not None
    return state | {name[: found.start()] + number + name[found.end() :]: state[name]}


def pth(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def safe(state: State) -> bytes:
    return save({name: tensor.contiguous().clone() for name, tensor in state.items()})


def header(change: Callable[[dict], object]) -> Callable[[State], bytes]:
    """A safetensors file whose header is changed."""

    def make(state: State) -> bytes:
        data = safe(state)
        (length,) = struct.unpack("<Q", data[:8])
        facts = json.loads(data[8 : 8 + length])
        change(facts[middle(state)])
        text = json.dumps(facts).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return make


BYTES |= {
    **{f"{share} % of a .pth": lambda s, share=share: pth(s)[: len(pth(s)) * share // 100] for share in (1, 50, 99)},
    **{
        f"{share} % of a .safetensors": lambda s, share=share: safe(s)[: len(safe(s)) * share // 100]
        for share in (50, 99)
    },
    "huge shape": header(lambda facts: facts.update(shape=[10**9, 10**9, 3, 3])),
    "huge offsets": header(lambda facts: facts.update(data_offsets=[0, 10**15])),
    "negative shape": header(lambda facts: facts.update(shape=[-1, 8, 3, 3])),
    "another dtype": header(lambda facts: facts.update(dtype="BF16")),
    "no dtype": header(lambda facts: facts.update(dtype="Q7")),
    "overlapping": header(lambda facts: facts.update(data_offsets=[4, facts["data_offsets"][1]])),
    "bytes turned": lambda state: bytes(255 - byte for byte in safe(state)[:4000]),
}


def graph(folder: Path, kind: str) -> tuple[str, bytes]:
    """A graph and its weights."""
    path = folder / f"{kind}.param"
    if kind == "rrdbnet":
        ncnn_files.rrdbnet(path, _rrdbnet(), 1, 2)
    elif kind == "compact":
        ncnn_files.compact(path, dict(originals.compact(2)[0]), 3, 2)
    else:
        folded = originals.span_folded(originals.span(2)[0])
        ncnn_files.span(path, folded, 255.0, originals.DIV2K, 2)
    return path.read_text(), path.with_suffix(".bin").read_bytes()


def text_of(pattern: str, new: str, count: int = 1) -> Callable[[str, bytes], tuple[str, bytes | None]]:
    def change(text: str, data: bytes) -> tuple[str, bytes | None]:
        result, times = re.subn(pattern, new, text, count=count, flags=re.M)
        assert times, "or the fault is none"
        return result, data

    return change


def _line(number: int, change: Callable[[list[str]], list[str]]) -> Callable[[str, bytes], tuple[str, bytes | None]]:
    """The words of a line of the graph, of those behind the two of the header."""

    def apply(text: str, data: bytes) -> tuple[str, bytes | None]:
        lines = text.splitlines()
        lines[number] = " ".join(change(lines[number].split()))
        return "\n".join(lines) + "\n", data

    return apply


def _reading(blob: Callable[[list[str]], str]) -> Callable[[list[str]], list[str]]:
    return lambda words: [*words[:4], blob(words), *words[5:]]


GRAPHS |= {
    "a layer reads itself": _line(4, _reading(lambda words: words[4 + int(words[2])])),
    "a layer reads what comes later": _line(4, _reading(lambda words: "output")),
    "a layer reads nothing that there is": _line(4, _reading(lambda words: "nowhere")),
    "a blob is made twice": _line(5, lambda w: [*w[: 4 + int(w[2])], "b1", *w[5 + int(w[2]) :]]),
    "an unknown layer": _line(4, lambda words: ["Mystery", *words[1:]]),
    "a layer whose name is an escape": _line(4, lambda words: ["\x1b[2J", *words[1:]]),
    "no input": lambda text, data: (text.replace("Input ", "Inputs "), data),
    "two inputs": lambda text, data: (text.replace("0 1 data", "0 2 data other"), data),
    "more inputs than there are": _line(4, lambda words: [*words[:2], "99", *words[3:]]),
    "-1 inputs": _line(4, lambda words: [*words[:2], "-1", *words[3:]]),
    "inputs that are no number": _line(4, lambda words: [*words[:2], "one", *words[3:]]),
    "10^30 inputs": _line(4, lambda words: [*words[:2], "1" + "0" * 30, *words[3:]]),
    "no magic number": text_of(r"\A\d+", "1234567"),
    "no header": lambda text, data: ("\n".join(text.splitlines()[2:]), data),
    "a header of words": text_of(r"\A(\d+\n)\d+ \d+", r"\1many more"),
    "a billion layers": text_of(r"\A(\d+\n)\d+", r"\g<1>1000000000"),
    "one layer less": lambda text, data: (text[: text.rstrip().rfind("\n") + 1], data),
    "half of the graph": lambda text, data: (text[: len(text) // 2], data),
    "an empty graph": lambda text, data: ("", data),
    "huge outputs": text_of(r"(^Convolution .*) 0=\d+", rf"\g<1> 0={HUGE}"),
    "huge outputs and weights": text_of(r"(^Convolution .*) 0=\d+(.*) 6=\d+", rf"\g<1> 0={HUGE}\g<2> 6={HUGE * 27}"),
    "huge weights": text_of(r" 6=\d+", f" 6={10**18}"),
    "negative outputs": text_of(r"(^Convolution .*) 0=\d+", r"\g<1> 0=-8"),
    "no outputs": text_of(r"(^Convolution .*) 0=\d+", r"\g<1> 0=0"),
    "a huge kernel": text_of(r" 1=3 11=3", " 1=100000 11=100000"),
    "a stride": text_of(r" 11=3", " 11=3 3=2"),
    "a dilation": text_of(r" 11=3", " 11=3 2=2"),
    "no padding": text_of(r" 4=1 14=1", " 4=0 14=0"),
    "outputs that are no number": text_of(r"(^Convolution .*) 0=\d+", r"\g<1> 0=nan"),
    "a setting without a value": text_of(r" 11=3", " 11="),
    "an array that is longer than it is": text_of(r" 11=3", " 11=3 -23310=1000000000,1"),
    "no weights": lambda text, data: (text, None),
    "empty weights": lambda text, data: (text, b""),
    "half of the weights": lambda text, data: (text, data[: len(data) // 2]),
    "weights of one byte less": lambda text, data: (text, data[:-1]),
    "weights of four bytes more": lambda text, data: (text, data + bytes(4)),
    "other weights": lambda text, data: (text, bytes(range(256)) * (len(data) // 256)),
}
