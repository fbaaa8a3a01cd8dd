"""Graphs and weights in ncnn's form, written from state dicts as Upscayl and the *-ncnn-vulkan programs have them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

HALF, SIGNED = 0x01306B47, 0x000D4B38
State = Mapping[str, Tensor]


class Writer:
    """Lines of a graph and bytes of its weights. ``storage``: "float", "half", "table" (of 256 numbers) or "signed"."""

    def __init__(self, storage: str = "half"):
        self.storage, self.lines, self.data = storage, ["Input image 0 1 data"], b""
        self.blobs = 1

    def add(self, kind: str, inputs: list[str], settings: str = "", output: str | None = None) -> str:
        output = output or f"b{self.blobs}"
        self.blobs += 1
        names = " ".join([*inputs, output])
        self.lines.append(f"{kind:<16} {kind.lower()}_{self.blobs} {len(inputs)} 1 {names} {settings}")
        return output

    def conv(self, state: State, name: str, x: str, activation: str = "") -> str:
        weight, bias = state[f"{name}.weight"].float().numpy(), state.get(f"{name}.bias")
        outputs, _, height, width = weight.shape
        settings = f"0={outputs} 1={width} 11={height} 4={width // 2} 14={height // 2} 6={weight.size} {activation}"
        settings += " 5=1" if bias is not None else ""
        if self.storage == "half":
            self.data += struct.pack("<I", HALF) + padded(weight.astype("<f2").tobytes())
        elif self.storage == "float":
            self.data += struct.pack("<I", 0) + weight.astype("<f4").tobytes()
        elif self.storage == "signed":
            scales = 127 / np.abs(weight).reshape(outputs, -1).max(1)
            rounded = np.rint(weight * scales[:, None, None, None]).astype(np.int8)
            self.data += struct.pack("<I", SIGNED) + padded(rounded.tobytes())
            settings += " 8=2"
        else:
            table = np.linspace(weight.min(), weight.max(), 256).astype("<f4")
            nearest = np.abs(weight.reshape(-1, 1) - table).argmin(1).astype(np.uint8)
            self.data += b"\x01\x02\x03\x04" + table.tobytes() + padded(nearest.tobytes())
        if bias is not None:
            self.data += bias.float().numpy().astype("<f4").tobytes()
        if self.storage == "signed":
            self.data += scales.astype("<f4").tobytes() + struct.pack("<f", 10.0)
        return self.add("Convolution", [x], settings)

    def write(self, path: Path, last: str) -> Path:
        """FILE.param and FILE.bin."""
        text = "\n".join(["7767517", f"{len(self.lines)} {self.blobs}", *self.lines]) + "\n"
        path.write_text(text.replace(f" {last} ", " output ") if last != "output" else text)
        path.with_suffix(".bin").write_bytes(self.data)
        return path


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


LEAKY = "9=2 -23310=1,2.000000e-01"


def rrdbnet(
    path: Path, state: State, blocks: int, enlargements: int, unshuffled: int = 1, storage: str = "half"
) -> Path:
    """As realesrgan-x4plus.param has it: activations within convolutions, factors as scalars."""
    w = Writer(storage)
    x = w.add("Reorg", ["data"], f"0={unshuffled}") if unshuffled > 1 else "data"
    shallow = x = w.conv(state, "conv_first", x)
    for n in range(blocks):
        start = x
        for r in (1, 2, 3):
            made = [x]
            for k in range(1, 6):
                given = made[0] if k == 1 else w.add("Concat", made)
                layer = f"body.{n}.rdb{r}.conv{k}"
                plus = f"body.{n}.rdb{r}.conv1x1"
                y = w.conv(state, layer, given, LEAKY if k < 5 else "")
                if f"{plus}.weight" in state and k == 2:
                    y = w.add("BinaryOp", [y, w.conv(state, plus, x)], "0=0")
                if f"{plus}.weight" in state and k == 4:
                    y = w.add("BinaryOp", [y, made[2]], "0=0")
                made.append(y)
            x = w.add("BinaryOp", [w.add("BinaryOp", [made[5]], "0=2 1=1 2=2.000000e-01"), x], "0=0")
        x = w.add("Eltwise", [x, start], "0=1 -23301=2,2.000000e-01,1.000000e+00")
    x = w.add("BinaryOp", [shallow, w.conv(state, "conv_body", x)], "0=0")
    for i in range(1, enlargements + 1):
        x = w.conv(state, f"conv_up{i}", w.add("Interp", [x], "0=1 1=2.000000e+00 2=2.000000e+00"), LEAKY)
    x = w.add("ReLU", [w.conv(state, "conv_hr", x)], "0=2.000000e-01")
    return w.write(path, w.conv(state, "conv_last", x))


def compact(
    path: Path, state: State, convolutions: int, scale: int, shrunk: float = 1.0, storage: str = "half", relu: str = ""
) -> Path:
    """As realesr-animevideov3 has it; ``relu``: the settings of a ReLU instead of each PReLU."""
    w, x = Writer(storage), "data"
    for n in range(convolutions + 2):
        x = w.conv(state, f"body.{2 * n}", x)
        if n <= convolutions and relu:
            x = w.add("ReLU", [x], relu)
        elif n <= convolutions:
            slope = state[f"body.{2 * n + 1}.weight"].float().numpy()
            w.data += slope.astype("<f4").tobytes()
            x = w.add("PReLU", [x], f"0={slope.size}")
    x = w.add("PixelShuffle", [x], f"0={scale}")
    x = w.add("BinaryOp", [x, w.add("Interp", ["data"], f"0=1 1={scale:.6e} 2={scale:.6e}")])
    return w.write(path, x if shrunk == 1 else w.add("Interp", [x], f"0=3 1={shrunk:.6e} 2={shrunk:.6e}"))


def span(
    path: Path, state: State, value_range: float, mean: tuple[float, ...], scale: int, storage: str = "half"
) -> Path:
    """Folded, as spanx4_ch48.param has it."""
    w = Writer(storage)
    w.data += np.array(mean, "<f4").tobytes()
    constant = w.add("MemoryData", [], "0=1 1=1 2=3")
    x = w.add("BinaryOp", [w.add("BinaryOp", ["data", constant], "0=1")], f"0=2 1=1 2={value_range:.6e}")
    shallow = x = w.conv(state, "conv_1.eval_conv", x)
    made = []
    for n in range(1, 7):
        a = w.add("Swish", [w.conv(state, f"block_{n}.c1_r.eval_conv", x)])
        b = w.conv(state, f"block_{n}.c2_r.eval_conv", a)
        b = w.add("BinaryOp", [b, w.add("Sigmoid", [b])], "0=2")
        c = w.conv(state, f"block_{n}.c3_r.eval_conv", b)
        gate = w.add("BinaryOp", [w.add("Sigmoid", [c])], "0=1 1=1 2=5.000000e-01")
        x = w.add("BinaryOp", [w.add("BinaryOp", [c, x], "0=0"), gate], "0=2")
        made.append((a, x))
    joined = w.add("Concat", [shallow, w.conv(state, "conv_2.eval_conv", x), made[0][1], made[-1][0]])
    x = w.conv(state, "upsampler.0", w.conv(state, "conv_cat", joined))
    return w.write(path, w.add("PixelShuffle", [x], f"0={scale}"))
