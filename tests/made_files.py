"""Files of small networks that are odd, or wrong, at places that a seed chooses.

``ODD`` has ways to keep a state dict that change nothing of the network, ``CONTAINERS`` the forms of files that hold
it, ``WRONG`` faults of state dicts, ``BROKEN`` of the bytes that hold them; ``ODD_GRAPHS`` and ``WRONG_GRAPHS`` are of
ncnn's graphs, ``BROKEN_GRAPHS`` faults of them that may or may not leave a network. Each is given a ``random.Random``.
"""

from __future__ import annotations

import json
import os
import random
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import local_originals as originals
import originals as others
import torch
from hostile_files import Calls, legacy, zipped
from originals import Original
from safetensors.torch import save
from test_local_networks import tempered
from torch import Tensor, nn

State = dict[str, Tensor]
Random = random.Random
Content = dict[str, object]
Bytes = Callable[[Random, State, Path], bytes]


def _spelled(original: Original, change: Callable[[State], State]) -> Original:
    state, forward = original
    return change(state), forward


def _ranged(original: Original, largest: float) -> Original:
    """Of RGB in 0..1, for a network that takes 0..largest."""
    state, forward = original
    return state, lambda image: forward(largest * image) / largest


MAKERS: dict[str, tuple[Callable[[], Original], dict[str, object]]] = {
    "rrdbnet": (lambda: tempered(originals.rrdbnet(blocks=1)), {}),
    "esrgan": (lambda: _spelled(tempered(originals.rrdbnet(blocks=1)), lambda s: originals.esrgan(s, 2, 1)), {}),
    "bsrgan": (lambda: _spelled(tempered(originals.rrdbnet(1, blocks=1)), originals.bsrgan), {}),
    "x2plus": (lambda: tempered(originals.rrdbnet(unshuffled=2, blocks=1)), {}),
    "compact": (lambda: tempered(originals.compact(2)), {}),
    "span": (lambda: tempered(originals.span(2, gain=2 / 255)), {}),
    "span, folded": (lambda: _spelled(tempered(originals.span(2, gain=2 / 255)), originals.span_folded), {}),
    "edsr": (lambda: originals.edsr(2, False), {}),
    "edsr, BasicSR": (lambda: originals.edsr(2, True), {}),
    "rcan": (lambda: tempered(originals.rcan(2)), {}),
    "rcan, authors": (lambda: _ranged(others.rcan(2), 255.0), {}),
    "msrresnet": (lambda: others.msrresnet(2), {}),
    "pan": (lambda: others.pan(4), {}),
    "imdn": (lambda: others.imdn(2), {"input_range": "0..1"}),
    "rfdn": (lambda: others.rfdn(2), {"input_range": "0..1"}),
}


@cache
def network(name: str) -> tuple[State, Callable[[Tensor], Tensor], dict[str, object]]:
    """Its tensors, what it computes, and what a reader is to be told. The tensors are exact in bfloat16."""
    make, options = MAKERS[name]
    state, forward = make()
    if not isinstance(state, others.Weights):  # another spelling: what was folded is another number
        return {key: tensor.float() for key, tensor in state.items()}, forward, options
    for key in state:
        state[key] = state[key].bfloat16().float()
    return dict(state), forward, options


# What changes nothing.


def _prefixed(prefix: str) -> Callable[[Random, State], Content]:
    return lambda rng, state: {prefix + name: tensor for name, tensor in state.items()}


def _shuffled(rng: Random, state: State) -> Content:
    return dict(rng.sample(sorted(state.items()), len(state)))


def _with_strides(rng: Random, state: State) -> Content:
    """Each tensor's numbers in another order in memory."""
    found: Content = {}
    for name, tensor in state.items():
        order = rng.sample(range(tensor.ndim), tensor.ndim)
        back = [order.index(side) for side in range(tensor.ndim)]
        found[name] = tensor.permute(order).contiguous().permute(back)
    return found


def _in_one_storage(rng: Random, state: State) -> Content:
    """Views of one vector, as fused parameters are."""
    flat, found, begin = torch.cat([tensor.flatten() for tensor in state.values()]), {}, 0
    for name, tensor in state.items():
        found[name] = flat[begin : begin + tensor.numel()].view(tensor.shape)
        begin += tensor.numel()
    return found


def _beside(rng: Random, state: State) -> Content:
    """What a training keeps."""
    moments = {i: {"exp_avg": torch.zeros_like(tensor), "step": 3} for i, tensor in enumerate(state.values())}
    optimiser = {"state": moments, "param_groups": [{"lr": rng.random(), "params": list(moments)}]}
    kept: Content = {"epoch": rng.randrange(99), "state_dict": state, "optimizer": optimiser, "best_psnr": 30.1}
    return dict(rng.sample(sorted(kept.items(), key=str), len(kept)))


def _counted(rng: Random, state: State) -> Content:
    modules = {name.rpartition(".")[0] for name in state}
    return state | {f"{module}.total_ops": torch.zeros(1) for module in rng.sample(sorted(modules), 3)}


ODD: dict[str, Callable[[Random, State], Content]] = {
    "in another order": _shuffled,
    "of DataParallel": _prefixed("module."),
    "of torch.compile in DataParallel": _prefixed("module._orig_mod."),
    "of a generator": _prefixed("netG."),
    "in params": lambda rng, state: {"params": state},
    "in params_ema": lambda rng, state: {"params": {n: t + 1 for n, t in state.items()}, "params_ema": state},
    "three dictionaries deep": lambda rng, state: {"a": 1, "model": {"net": {"state_dict": state}}},
    "beside an optimiser": _beside,
    "beside a discriminator": lambda rng, state: (
        {f"generator.{name}": tensor for name, tensor in state.items()}
        | {"discriminator.conv0.weight": torch.zeros(4, 3, 3, 3)}
    ),
    "averaged": lambda rng, state: _prefixed("module.")(rng, state) | {"n_averaged": torch.tensor(5)},
    "with thop's counts": _counted,
    "in float16 and float32": lambda rng, state: {
        n: t.half() if float((t.half().float() - t).abs().max()) == 0 and rng.random() < 0.5 else t
        for n, t in state.items()
    },
    "in float64": lambda rng, state: {name: tensor.double() for name, tensor in state.items()},
    "with strides": _with_strides,
    "in one storage": _in_one_storage,
    "as parameters": lambda rng, state: {name: nn.Parameter(tensor) for name, tensor in state.items()},
}


def _flat(content: Content) -> State | None:
    tensors = {name: t.detach() for name, t in content.items() if isinstance(t, Tensor)}
    return tensors if len(tensors) == len(content) else None


def _safe(content: Content, metadata: dict[str, str] | None = None) -> bytes:
    """Of what a safetensors file cannot hold, an archive."""
    tensors = _flat(content)
    if tensors is None:
        return zipped(content)
    return save({name: t.contiguous().clone() for name, t in tensors.items()}, metadata)


CONTAINERS: dict[str, tuple[str, Callable[[Content], bytes]]] = {  # kind -> name of the file, its bytes
    "an archive": ("net.pth", zipped),
    "an old file": ("net.pt", legacy),
    "an archive of another name": ("net_g_latest.ckpt", zipped),
    "an archive without a suffix": ("a b", zipped),
    "an archive in capitals": ("4x_Größe.PTH", zipped),
    "safetensors": ("net.safetensors", _safe),
    "safetensors called .pth": ("x2.pth", _safe),
    "safetensors called .bin": ("model.bin", _safe),
    "safetensors with words": ("net.SAFETENSORS", lambda c: _safe(c, {"format": "pt", "author": "\x1b[2J\n" * 9})),
}

# Faults of tensors: none of these is a network.


def _any(rng: Random, state: State, large: bool = False) -> str:
    """The name of a tensor, ``large``: of four dimensions; not of those of SPAN that are out of date."""
    stale = any(name.endswith("sk.weight") for name in state)
    names = [name for name, t in state.items() if (t.ndim == 4 or not large) and not (stale and "eval_conv" in name)]
    return rng.choice([name for name in names if "_mean." not in name])


def _changed(
    change: Callable[[Random, Tensor], object], large: bool = False
) -> Callable[[Random, State], dict[object, object]]:
    def apply(rng: Random, state: State) -> dict[object, object]:
        name = _any(rng, state, large)
        return {**state, name: change(rng, state[name])}

    return apply


def _renamed(change: Callable[[Random, str], str]) -> Callable[[Random, State], dict[object, object]]:
    def apply(rng: Random, state: State) -> dict[object, object]:
        name = _any(rng, state)
        return {(change(rng, key) if key == name else key): tensor for key, tensor in state.items()}

    return apply


def _at_one_place(value: float) -> Callable[[Random, Tensor], Tensor]:
    def apply(rng: Random, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[rng.randrange(tensor.numel())] = value
        return tensor

    return apply


def _without(rng: Random, state: State) -> dict[object, object]:
    """Without one, whose fellow of the same layer stays."""
    layers = [name.rpartition(".")[0] for name in state]
    pairs = [name for name in state if layers.count(name.rpartition(".")[0]) > 1]
    gone = _any(rng, {name: state[name] for name in pairs})
    return {name: tensor for name, tensor in state.items() if name != gone}


def _swapped(rng: Random, state: State) -> dict[object, object]:
    """Two of different shapes under each other's names."""
    one = _any(rng, state)
    shapes = {name for name, tensor in state.items() if tensor.shape != state[one].shape}
    two = _any(rng, {name: state[name] for name in shapes})
    return {**state, one: state[two], two: state[one]}


WRONG: dict[str, Callable[[Random, State], dict[object, object]]] = {
    "outputs more": _changed(lambda rng, t: torch.cat([t, t[: rng.randint(1, 2)]]), large=True),
    "inputs less": _changed(lambda rng, t: t[:, : t.shape[1] - rng.randint(1, t.shape[1])], large=True),
    "a dimension more": _changed(lambda rng, t: t.unsqueeze(rng.randint(0, t.ndim))),
    "a dimension less": _changed(lambda rng, t: t.flatten(*rng.choice([(0, 1), (1, 2), (0, 3)])), large=True),
    "a kernel of two": _changed(lambda rng, t: t.repeat(1, 1, 2, 2)[:, :, :2, :2], large=True),
    "one number for many": _changed(lambda rng, t: torch.zeros(1).expand(10**5, 10**4, 3, 3), large=True),
    "NaN at one place": _changed(_at_one_place(float("nan"))),
    "infinity at one place": _changed(_at_one_place(-float("inf"))),
    "truths": _changed(lambda rng, t: t > 0),
    "bytes": _changed(lambda rng, t: t.to(torch.uint8)),
    "complex numbers": _changed(lambda rng, t: t + 1j),
    "a sparse one": _changed(lambda rng, t: t.to_sparse()),
    "one without values": _changed(lambda rng, t: t.to("meta")),
    "a text for one": _changed(lambda rng, t: "weights"),
    "nothing for one": _changed(lambda rng, t: None),
    "numbers in a list": _changed(lambda rng, t: t.flatten().tolist()[:1000]),
    "one in a dictionary": _changed(lambda rng, t: {"weight": t}),
    "one missing": _without,
    "two swapped": _swapped,
    "a letter of a name": _renamed(lambda rng, n: n[: (i := rng.randrange(len(n)))] + "q" + n[i + 1 :]),
    "a name in capitals": _renamed(lambda rng, n: n.upper()),
    "a name with a NUL": _renamed(lambda rng, n: n + "\0"),
    "a name with an escape": _renamed(lambda rng, n: "\x1b]0;x\x07" + n),
    "a name with a line": _renamed(lambda rng, n: n + ".\n\r\u2028Then"),
    "a name without an end": _renamed(lambda rng, n: n + "_x" * 50_000),
    "no name": _renamed(lambda rng, n: ""),
    "a number for a name": lambda rng, s: {
        (7 if key == name else key): t for name in [_any(rng, s)] for key, t in s.items()
    },
    "numbers of another script": lambda rng, s: {re.sub(r"\d", "\u0663", name): t for name, t in s.items()},
    "numbers with a zero before": lambda rng, s: {re.sub(r"\.(\d)", r".0\1", name): t for name, t in s.items()},
    "numbers below zero": lambda rng, s: {re.sub(r"\.(\d)", r".-\1", name): t for name, t in s.items()},
    "strangers": lambda rng, s: {**s, **{f"extra.{rng.random()}.weight": torch.zeros(3) for _ in range(500)}},
    "all the same tensor": lambda rng, s: dict.fromkeys(s, next(iter(s.values()))),
}

# Faults of bytes.


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) - 1)]


def _safe_header(change: Callable[[Random, dict[str, dict], str], object]) -> Bytes:
    """A safetensors file with another list of tensors."""

    def make(rng: Random, state: State, canary: Path) -> bytes:
        data = _safe(dict(state))
        (length,) = struct.unpack("<Q", data[:8])
        facts = json.loads(data[8 : 8 + length])
        result = change(rng, facts, _any(rng, state))
        text = json.dumps(facts if result is None else result).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return make


def _entry(key: str, *values: object) -> Bytes:
    return _safe_header(lambda rng, facts, name: facts[name].__setitem__(key, rng.choice(values)))


def _with_call(write: Callable[[Content], bytes]) -> Bytes:
    """Code somewhere among the tensors."""

    def make(rng: Random, state: State, canary: Path) -> bytes:
        items: list[tuple[str, object]] = list(state.items())
        items.insert(rng.randrange(len(items)), ("hidden", Calls(os.system, f"echo run > {canary}")))
        return write(dict(items))

    return make


BROKEN: dict[str, tuple[str, Bytes]] = {  # kind -> suffix, bytes
    "a cut archive": (".pth", lambda rng, s, c: _cut(rng, zipped(s))),
    "a cut old file": (".pth", lambda rng, s, c: _cut(rng, legacy(s))),
    "cut safetensors": (".safetensors", lambda rng, s, c: _cut(rng, _safe(dict(s)))),
    "cut safetensors called .pth": (".pth", lambda rng, s, c: _cut(rng, _safe(dict(s)))),
    "an archive within bytes": (".pth", lambda rng, s, c: rng.randbytes(100) + zipped(s)[100:]),
    "an archive without its middle": (
        ".pth",
        lambda rng, s, c: (data := zipped(s))[: (i := rng.randrange(1, len(data) // 2))] + data[i + 64 :],
    ),
    "safetensors and more": (".safetensors", lambda rng, s, c: _safe(dict(s)) + rng.randbytes(rng.randint(1, 999))),
    "safetensors behind a byte": (".safetensors", lambda rng, s, c: b"\0" + _safe(dict(s))),
    "a huge shape": (".safetensors", _entry("shape", [2**62, 8], [10**9] * 4, [2**31] * 3)),
    "a shape beyond all numbers": (".safetensors", _entry("shape", [2**64], [10**40, 3, 3, 3])),
    "a shape that is none": (".safetensors", _entry("shape", [-1], [1.5], ["8"], None, {}, [[3]])),
    "offsets elsewhere": (".safetensors", _entry("data_offsets", [0, 2**63], [-4, 0], [8, 4], [0], "0", None)),
    "another dtype": (".safetensors", _entry("dtype", "F64", "I64", "F8_E4M3", "", None, "float32")),
    "a missing fact": (".safetensors", _safe_header(lambda rng, f, n: f[n].pop(rng.choice(list(f[n])), None) and None)),
    "metadata of numbers": (".safetensors", _safe_header(lambda rng, f, n: f | {"__metadata__": {"a": 1}})),
    "a list of nothing": (".safetensors", _safe_header(lambda rng, f, n: {})),
    "code in an archive": (".pth", _with_call(zipped)),
    "code in an old file": (".pt", _with_call(legacy)),
    "code called safetensors": (".safetensors", _with_call(zipped)),
}
