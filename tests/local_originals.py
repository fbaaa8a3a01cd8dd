"""RRDBNet, SRVGGNetCompact, SPAN, EDSR and the community's RCAN, written down a second time in functions of float64.

Each function makes the weights of a small network and what it computes of RGB in 0..1; others give the weights the
names of another spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from originals import Original, Weights
from torch import Tensor

DIV2K = (0.4488, 0.4371, 0.4040)


class Doubles(Weights):
    """Weights that compute in float64."""

    def run(self, name: str, x: Tensor, padding: int | None = None, stride: int = 1) -> Tensor:
        weight, bias = self[f"{name}.weight"].double(), self.get(f"{name}.bias")
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x.double(), weight, None if bias is None else bias.double(), stride, padding)


def rrdbnet(
    enlargements: int = 2, blocks: int = 2, nf: int = 8, gc: int = 4, unshuffled: int = 1, plus: bool = False
) -> Original:
    """In the names of Real-ESRGAN."""
    w = Doubles()
    w.conv("conv_first", 3 * unshuffled**2, nf, 3)
    for n in range(blocks):
        for r in (1, 2, 3):
            for k in range(1, 6):
                w.conv(f"body.{n}.rdb{r}.conv{k}", nf + (k - 1) * gc, nf if k == 5 else gc, 3)
            if plus:
                w.conv(f"body.{n}.rdb{r}.conv1x1", nf, gc, 1, bias=False)
    for name in ("conv_body", *(f"conv_up{i}" for i in range(1, enlargements + 1)), "conv_hr"):
        w.conv(name, nf, nf, 3)
    w.conv("conv_last", nf, 3, 3)

    def dense(name: str, x: Tensor) -> Tensor:
        x1 = F.leaky_relu(w.run(f"{name}.conv1", x), 0.2)
        x2 = F.leaky_relu(w.run(f"{name}.conv2", torch.cat([x, x1], 1)), 0.2)
        x2 = x2 + w.run(f"{name}.conv1x1", x) if plus else x2
        x3 = F.leaky_relu(w.run(f"{name}.conv3", torch.cat([x, x1, x2], 1)), 0.2)
        x4 = F.leaky_relu(w.run(f"{name}.conv4", torch.cat([x, x1, x2, x3], 1)), 0.2)
        x4 = x4 + x2 if plus else x4
        return 0.2 * w.run(f"{name}.conv5", torch.cat([x, x1, x2, x3, x4], 1)) + x

    def forward(image: Tensor) -> Tensor:
        s, (height, width) = unshuffled, image.shape[2:]
        x = F.pad(image.double(), (0, -width % s, 0, -height % s), mode="reflect")
        rows, columns = x.shape[2] // s, x.shape[3] // s
        x = x.reshape(-1, 3, rows, s, columns, s).permute(0, 1, 3, 5, 2, 4).reshape(-1, 3 * s * s, rows, columns)
        first = x = w.run("conv_first", x)
        for n in range(blocks):
            y = x
            for r in (1, 2, 3):
                y = dense(f"body.{n}.rdb{r}", y)
            x = x + 0.2 * y
        x = first + w.run("conv_body", x)
        for i in range(1, enlargements + 1):
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = F.leaky_relu(w.run(f"conv_up{i}", x), 0.2)
        x = w.run("conv_last", F.leaky_relu(w.run("conv_hr", x), 0.2))
        scale = 2**enlargements // s
        return x[:, :, : scale * height, : scale * width]

    return w, forward


def spelled(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Names changed by the first rule that fits."""
    result = {}
    for name, tensor in state.items():
        pattern, new = next(rule for rule in rules if re.fullmatch(rule[0], name))
        result[re.sub(pattern, new, name)] = tensor
    return result


def esrgan(state: Mapping[str, Tensor], enlargements: int, blocks: int) -> dict[str, Tensor]:
    """RRDBNet in the names of ESRGAN's first code."""
    rules = [
        (r"conv_first\.(\w+)", r"model.0.\1"),
        (r"body\.(\d+)\.rdb(\d)\.conv1x1\.(\w+)", r"model.1.sub.\1.RDB\2.conv1x1.\3"),
        (r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(\w+)", r"model.1.sub.\1.RDB\2.conv\3.0.\4"),
        (r"conv_body\.(\w+)", rf"model.1.sub.{blocks}.\1"),
        *((rf"conv_up{i}\.(\w+)", rf"model.{3 * i}.\1") for i in range(1, enlargements + 1)),
        (r"conv_hr\.(\w+)", rf"model.{3 * enlargements + 2}.\1"),
        (r"conv_last\.(\w+)", rf"model.{3 * enlargements + 4}.\1"),
    ]
    return spelled(state, rules)


def bsrgan(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RRDBNet in the names of BSRGAN, RealSR and KAIR."""
    rules = [
        (r"body\.(\d+)\.rdb(\d)\.(.+)", r"RRDB_trunk.\1.RDB\2.\3"),
        (r"conv_body\.(\w+)", r"trunk_conv.\1"),
        (r"conv_up(\d)\.(\w+)", r"upconv\1.\2"),
        (r"conv_hr\.(\w+)", r"HRconv.\1"),
        (r"(.*)", r"\1"),
    ]
    return spelled(state, rules)


def compact(scale: int, convolutions: int = 3, nf: int = 8) -> Original:
    w = Doubles()
    for n in range(convolutions + 1):
        w.conv(f"body.{2 * n}", 3 if n == 0 else nf, nf, 3)
        w.add(f"body.{2 * n + 1}.weight", nf, fan=9)
    w.conv(f"body.{2 * convolutions + 2}", nf, 3 * scale * scale, 3)

    def forward(image: Tensor) -> Tensor:
        x = image.double()
        for n in range(convolutions + 1):
            x = w.run(f"body.{2 * n}", x)
            x = x.clamp(min=0) + w[f"body.{2 * n + 1}.weight"].double()[:, None, None] * x.clamp(max=0)
        x = F.pixel_shuffle(w.run(f"body.{2 * convolutions + 2}", x), scale)
        return x + image.double().repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    return w, forward


SPAN_LAYERS = ("conv_1", *(f"block_{n}.c{k}_r" for n in range(1, 7) for k in (1, 2, 3)), "conv_2")


def span(
    scale: int, nf: int = 8, value_range: float = 255.0, mean: tuple[float, ...] = DIV2K, gain: float = 1.0
) -> Original:
    """As it is trained, with an ``eval_conv`` in each layer that is out of date."""
    w = Doubles()
    for layer in SPAN_LAYERS:
        inputs = 3 if layer == "conv_1" else nf
        w.conv(f"{layer}.sk", inputs, nf, 1)
        w.conv(f"{layer}.conv.0", inputs, 2 * inputs, 1)
        w.conv(f"{layer}.conv.1", 2 * inputs, 2 * nf, 3)
        w.conv(f"{layer}.conv.2", 2 * nf, nf, 1)
        w.conv(f"{layer}.eval_conv", inputs, nf, 3)
    w.conv("conv_cat", 4 * nf, nf, 1)
    w.conv("upsampler.0", nf, 3 * scale * scale, 3)
    for name in list(w):  # a residual of each layer that stays in bounds
        w[name] = w[name] * (gain if name.startswith("conv_1.") else 0.7)

    def layer(name: str, x: Tensor) -> Tensor:
        padded = w.run(f"{name}.conv.0", F.pad(x.double(), (1, 1, 1, 1)))
        return w.run(f"{name}.conv.2", w.run(f"{name}.conv.1", padded, padding=0)) + w.run(f"{name}.sk", x)

    def forward(image: Tensor) -> Tensor:
        x = (image.double() - torch.tensor(mean, dtype=torch.float64)[:, None, None]) * value_range
        first = x = layer("conv_1", x)
        kept = []
        for n in range(1, 7):
            a = layer(f"block_{n}.c1_r", x)
            a = a * torch.sigmoid(a)
            b = layer(f"block_{n}.c2_r", a)
            c = layer(f"block_{n}.c3_r", b * torch.sigmoid(b))
            x = (c + x) * (torch.sigmoid(c) - 0.5)
            kept.append((a, x))
        x = torch.cat([first, layer("conv_2", x), kept[0][1], kept[-1][0]], 1)
        return F.pixel_shuffle(w.run("upsampler.0", w.run("conv_cat", x)), scale)

    return w, forward


def span_folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With one convolution in the place of each layer, found by what the layer makes of single pixels."""
    w = Doubles()
    w.update(state)
    result = {name: t for name, t in state.items() if not name.startswith(tuple(f"{layer}." for layer in SPAN_LAYERS))}
    for layer in SPAN_LAYERS:
        inputs = w[f"{layer}.sk.weight"].shape[1]

        def run(x: Tensor, layer: str = layer) -> Tensor:
            padded = w.run(f"{layer}.conv.0", F.pad(x, (1, 1, 1, 1)))
            return w.run(f"{layer}.conv.2", w.run(f"{layer}.conv.1", padded, padding=0)) + w.run(f"{layer}.sk", x)

        pixels = torch.zeros(inputs, inputs, 5, 5, dtype=torch.float64)
        pixels[range(inputs), range(inputs), 2, 2] = 1
        nothing = run(torch.zeros(1, inputs, 5, 5, dtype=torch.float64))
        answer = (run(pixels) - nothing)[:, :, 1:4, 1:4].flip(2, 3)
        result[f"{layer}.eval_conv.weight"] = answer.transpose(0, 1).contiguous()
        result[f"{layer}.eval_conv.bias"] = nothing[0, :, 2, 2].clone()
    return result


def steps_of(scale: int) -> list[int]:
    """Of an upsampler that enlarges by 3, or by 2 as often as it takes; x1 has none."""
    return {1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]


def rcan(scale: int, unshuffled: int = 1, groups: int = 2, blocks: int = 2, nf: int = 8) -> Original:
    """As the community trains it: values in 0..1, no mean colour, a pixel unshuffle before the first convolution."""
    w, first = Doubles(), "head.0" if unshuffled == 1 else "head.1"
    steps = steps_of(scale * unshuffled)
    w.conv(first, 3 * unshuffled**2, nf, 3)
    for g in range(groups):
        for b in range(blocks):
            name = f"body.{g}.body.{b}.body"
            w.conv(f"{name}.0", nf, nf, 3)
            w.conv(f"{name}.2", nf, nf, 3)
            w.conv(f"{name}.3.conv_du.0", nf, 2, 1)
            w.conv(f"{name}.3.conv_du.2", 2, nf, 1)
        w.conv(f"body.{g}.body.{blocks}", nf, nf, 3)
    w.conv(f"body.{groups}", nf, nf, 3)
    for i, step in enumerate(steps):
        w.conv(f"tail.0.{2 * i}", nf, nf * step * step, 3)
    w.conv("tail.1", nf, 3, 3)

    def forward(image: Tensor) -> Tensor:
        s, (height, width) = unshuffled, image.shape[2:]
        x = F.pixel_unshuffle(F.pad(image.double(), (0, -width % s, 0, -height % s), mode="reflect"), s)
        head = x = w.run(first, x)
        for g in range(groups):
            y = x
            for b in range(blocks):
                name = f"body.{g}.body.{b}.body"
                z = w.run(f"{name}.2", F.relu(w.run(f"{name}.0", y)))
                gate = F.relu(w.run(f"{name}.3.conv_du.0", z.mean((2, 3), keepdim=True)))
                y = y + z * torch.sigmoid(w.run(f"{name}.3.conv_du.2", gate))
            x = x + w.run(f"body.{g}.body.{blocks}", y)
        x = w.run(f"body.{groups}", x) + head
        for i, step in enumerate(steps):
            x = F.pixel_shuffle(w.run(f"tail.0.{2 * i}", x), step)
        return w.run("tail.1", x)[:, :, : scale * height, : scale * width]

    return w, forward


def edsr(
    scale: int, basicsr: bool, nf: int = 8, blocks: int = 2, residual: float = 1.0, largest: float = 255.0
) -> Original:
    """In the names of its authors, with the mean colour as tensors, or of BasicSR, where it is part of the code."""
    w = Doubles()
    first, after, last = (
        ("conv_first", "conv_after_body", "conv_last") if basicsr else ("head.0", f"body.{blocks}", "tail.1")
    )
    block, up = ("body.{}.conv{}", "upsample") if basicsr else ("body.{}.body.{}", "tail.0")
    places = (1, 2) if basicsr else (0, 2)
    steps = steps_of(scale)
    w.conv(first, 3, nf, 3)
    for n in range(blocks):
        for place in places:
            w.conv(block.format(n, place), nf, nf, 3)
    w.conv(after, nf, nf, 3)
    for i, step in enumerate(steps):
        w.conv(f"{up}.{2 * i}", nf, nf * step * step, 3)
    w.conv(last, nf, 3, 3)
    mean = largest * torch.tensor(DIV2K if basicsr else (0.4, 0.5, 0.3), dtype=torch.float64)
    if not basicsr:
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            w[f"{name}.weight"], w[f"{name}.bias"] = torch.eye(3).view(3, 3, 1, 1), sign * mean.float()

    def forward(image: Tensor) -> Tensor:
        head = x = w.run(first, largest * image.double() - mean[:, None, None])
        for n in range(blocks):
            made = w.run(block.format(n, places[1]), F.relu(w.run(block.format(n, places[0]), x)))
            x = x + residual * made
        x = w.run(after, x) + head
        for i, step in enumerate(steps):
            x = F.pixel_shuffle(w.run(f"{up}.{2 * i}", x), step)
        return (w.run(last, x) + mean[:, None, None]) / largest

    return w, forward


Forward = Callable[[Tensor], Tensor]
