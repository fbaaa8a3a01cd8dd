"""The published networks as they were written, from state dicts in their own spelling, with random weights.

Each function makes a small state dict and returns it with what the original network computes from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Original = tuple[dict[str, Tensor], Callable[[Tensor], Tensor]]
MEAN = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)


class Weights(dict[str, Tensor]):
    """Random weights under the names that they are asked for, and the layers that use them."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(7)

    def add(self, name: str, *shape: int, fan: int = 1) -> None:
        self[name] = torch.randn(shape, generator=self.generator) / fan**0.5

    def conv(self, name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", outputs, inputs, size, size, fan=inputs * size * size)
        if bias:
            self.add(f"{name}.bias", outputs, fan=100)

    def run(self, name: str, x: Tensor, padding: int | None = None, stride: int = 1) -> Tensor:
        weight = self[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.get(f"{name}.bias"), padding=padding, stride=stride)

    def statistics(self, name: str, channels: int) -> None:
        """What a batch normalisation keeps of its training."""
        self.add(f"{name}.running_mean", channels)
        self.add(f"{name}.running_var", channels)
        self[f"{name}.running_var"] = self[f"{name}.running_var"].abs() + 0.1
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def normalise(self, name: str, x: Tensor) -> Tensor:
        mean, variance, gain, shift = (
            self[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift


def fsrcnn_classic(scale: int, planes: int = 1, maps: int = 2, d: int = 10, s: int = 6) -> Original:
    w = Weights()
    w.conv("first_part.0", planes, d, 5)
    w.conv("mid_part.0", d, s, 1)
    for i in range(maps):
        w.conv(f"mid_part.{2 + 2 * i}", s, s, 3)
    last = 2 + 2 * maps
    w.conv(f"mid_part.{last}", s, d, 1)
    slopes = {"first_part.1": d, f"mid_part.{last + 1}": d} | {f"mid_part.{1 + 2 * i}": s for i in range(maps + 1)}
    for name, channels in slopes.items():
        w.add(f"{name}.weight", channels, fan=9)
    w.add("last_part.weight", d, planes, 9, 9, fan=d * 9)
    w.add("last_part.bias", planes)

    def forward(x: Tensor) -> Tensor:
        x = F.prelu(w.run("first_part.0", x), w["first_part.1.weight"])
        for i in range(maps + 2):
            x = F.prelu(w.run(f"mid_part.{2 * i}", x), w[f"mid_part.{2 * i + 1}.weight"])
        return F.conv_transpose2d(x, w["last_part.weight"], w["last_part.bias"], scale, 4, scale - 1)

    return w, forward


def fsrcnn_in_parts(scale: int, maps: int = 2) -> Original:
    """The classic one, under a name for each of its parts."""
    state, forward = fsrcnn_classic(scale, maps=maps)
    last = 2 + 2 * maps
    names = {"first_part.": "feature_extraction.", "mid_part.0.": "shrink.0.", "mid_part.1.": "shrink.1."}
    names |= {f"mid_part.{last + i}.": f"expand.{i}." for i in (0, 1)} | {"last_part.": "deconv."}
    names |= {f"mid_part.{2 + i}.": f"map.{i}." for i in range(2 * maps)}
    parts = {}
    for name, tensor in state.items():
        start = next(start for start in names if name.startswith(start))
        parts[names[start] + name.removeprefix(start)] = tensor
    return parts, forward


def fsrcnn_one_activation(classsr: bool, maps: int = 3, d: int = 8, s: int = 5, scale: int = 4) -> Original:
    """One PReLU after all maps: ClassSR's, with one slope, or the one with names for everything."""
    w = Weights()
    if classsr:
        first, shrink, expand = "head_conv.0", "body_conv.0", f"body_conv.{3 + maps}"
        names = [f"body_conv.{2 + i}" for i in range(maps)]
        slopes, last = ["head_conv.1", "body_conv.1", f"body_conv.{2 + maps}", f"body_conv.{4 + maps}"], "tail_conv"
    else:
        first, shrink, expand, names = "feature_extract", "shrink", "expand", [f"map_{1 + i}" for i in range(maps)]
        slopes, last = [f"activation_{1 + i}" for i in range(4)], "deconv"
    for name, inputs, outputs, size in ((first, 3, d, 5), (shrink, d, s, 1), (expand, s, d, 1)):
        w.conv(name, inputs, outputs, size)
    for name in names:
        w.conv(name, s, s, 3)
    for name, channels in zip(slopes, (d, s, s, d), strict=True):
        w.add(f"{name}.weight", 1 if classsr else channels, fan=9)
    w.add(f"{last}.weight", d, 3, 9, 9, fan=d * 9)
    w.add(f"{last}.bias", 3)

    def forward(x: Tensor) -> Tensor:
        x = F.prelu(w.run(first, x), w[f"{slopes[0]}.weight"])
        x = F.prelu(w.run(shrink, x), w[f"{slopes[1]}.weight"])
        for name in names:
            x = w.run(name, x)
        x = F.prelu(w.run(expand, F.prelu(x, w[f"{slopes[2]}.weight"])), w[f"{slopes[3]}.weight"])
        padding = (3, 1) if classsr else (4, scale - 1)
        return F.conv_transpose2d(x, w[f"{last}.weight"], w[f"{last}.bias"], scale, *padding)

    return w, forward


def pan(scale: int, blocks: int = 2, nf: int = 8, unf: int = 6) -> Original:
    w = Weights()
    w.conv("conv_first", 3, nf, 3)
    for i in range(blocks):
        block, half = f"SCPA_trunk.{i}", nf // 2
        for name, inputs, outputs, size in (
            ("conv1_a", nf, half, 1),
            ("conv1_b", nf, half, 1),
            ("k1.0", half, half, 3),
            ("PAConv.k3", half, half, 3),
            ("PAConv.k4", half, half, 3),
            ("conv3", nf, nf, 1),
        ):
            w.conv(f"{block}.{name}", inputs, outputs, size, bias=False)
        w.conv(f"{block}.PAConv.k2", half, half, 1)
    w.conv("trunk_conv", nf, nf, 3)
    steps = 2 if scale == 4 else 1
    for i in range(1, steps + 1):
        w.conv(f"upconv{i}", nf if i == 1 else unf, unf, 3)
        w.conv(f"att{i}.conv", unf, unf, 1)
        w.conv(f"HRconv{i}", unf, unf, 3)
    w.conv("conv_last", unf, 3, 3)

    def forward(image: Tensor) -> Tensor:
        first = x = w.run("conv_first", image)
        for i in range(blocks):
            b = f"SCPA_trunk.{i}"
            left = F.leaky_relu(w.run(f"{b}.k1.0", F.leaky_relu(w.run(f"{b}.conv1_a", x), 0.2)), 0.2)
            right = F.leaky_relu(w.run(f"{b}.conv1_b", x), 0.2)
            gated = w.run(f"{b}.PAConv.k3", right) * torch.sigmoid(w.run(f"{b}.PAConv.k2", right))
            right = F.leaky_relu(w.run(f"{b}.PAConv.k4", gated), 0.2)
            x = x + w.run(f"{b}.conv3", torch.cat([left, right], 1))
        x = first + w.run("trunk_conv", x)
        for i in range(1, steps + 1):
            x = w.run(f"upconv{i}", F.interpolate(x, scale_factor=2 if scale == 4 else scale))
            x = F.leaky_relu(x * torch.sigmoid(w.run(f"att{i}.conv", x)), 0.2)
            x = F.leaky_relu(w.run(f"HRconv{i}", x), 0.2)
        return w.run("conv_last", x) + F.interpolate(image, scale_factor=scale, mode="bilinear")

    return w, forward


def rfdn(scale: int, blocks: int = 2, nf: int = 16) -> Original:
    w, half, f = Weights(), nf // 2, nf // 4
    w.conv("fea_conv", 3, nf, 3)
    for i in range(1, blocks + 1):
        for j in (1, 2, 3):
            w.conv(f"B{i}.c{j}_d", nf, half, 1)
            w.conv(f"B{i}.c{j}_r", nf, nf, 3)
        w.conv(f"B{i}.c4", nf, half, 3)
        w.conv(f"B{i}.c5", 4 * half, nf, 1)
        w.conv(f"B{i}.esa.conv1", nf, f, 1)
        w.conv(f"B{i}.esa.conv_f", f, f, 1)
        for name in ("conv2", "conv_max", "conv3", "conv3_"):
            w.conv(f"B{i}.esa.{name}", f, f, 3)
        w.conv(f"B{i}.esa.conv4", f, nf, 1)
    w.conv("c.0", blocks * nf, nf, 1)
    w.conv("LR_conv", nf, nf, 3)
    w.conv("upsampler.0", nf, 3 * scale * scale, 3)

    def esa(name: str, x: Tensor) -> Tensor:
        small = w.run(f"{name}.conv1", x)
        y = F.max_pool2d(w.run(f"{name}.conv2", small, padding=0, stride=2), 7, 3)
        y = F.relu(w.run(f"{name}.conv3", F.relu(w.run(f"{name}.conv_max", y))))
        y = F.interpolate(w.run(f"{name}.conv3_", y), x.shape[2:], mode="bilinear")
        return x * torch.sigmoid(w.run(f"{name}.conv4", y + w.run(f"{name}.conv_f", small)))

    def forward(image: Tensor) -> Tensor:
        first = x = w.run("fea_conv", image)
        outputs = []
        for i in range(1, blocks + 1):
            kept = []
            for j in (1, 2, 3):
                kept.append(F.leaky_relu(w.run(f"B{i}.c{j}_d", x), 0.05))
                x = F.leaky_relu(w.run(f"B{i}.c{j}_r", x) + x, 0.05)
            kept.append(F.leaky_relu(w.run(f"B{i}.c4", x), 0.05))
            x = esa(f"B{i}.esa", w.run(f"B{i}.c5", torch.cat(kept, 1)))
            outputs.append(x)
        x = w.run("LR_conv", F.leaky_relu(w.run("c.0", torch.cat(outputs, 1)), 0.05)) + first
        return F.pixel_shuffle(w.run("upsampler.0", x), scale)

    return w, forward


def imdn(scale: int, blocks: int = 2, nf: int = 16) -> Original:
    w, kept = Weights(), nf // 4
    w.conv("fea_conv", 3, nf, 3)
    for i in range(1, blocks + 1):
        for j, inputs, outputs in ((1, nf, nf), (2, nf - kept, nf), (3, nf - kept, nf), (4, nf - kept, kept)):
            w.conv(f"IMDB{i}.c{j}", inputs, outputs, 3)
        w.conv(f"IMDB{i}.c5", nf, nf, 1)
        w.conv(f"IMDB{i}.cca.conv_du.0", nf, 2, 1)
        w.conv(f"IMDB{i}.cca.conv_du.2", 2, nf, 1)
    w.conv("c.0", blocks * nf, nf, 1)
    w.conv("LR_conv", nf, nf, 3)
    w.conv("upsampler.0", nf, 3 * scale * scale, 3)

    def forward(image: Tensor) -> Tensor:
        first = x = w.run("fea_conv", image)
        outputs = []
        for i in range(1, blocks + 1):
            parts, rest = [], x
            for j in (1, 2, 3):
                y = F.leaky_relu(w.run(f"IMDB{i}.c{j}", rest), 0.05)
                parts.append(y[:, :kept])
                rest = y[:, kept:]
            y = torch.cat([*parts, w.run(f"IMDB{i}.c4", rest)], 1)
            mean = y.mean((2, 3), keepdim=True)
            contrast = ((y - mean) ** 2).mean((2, 3), keepdim=True).sqrt() + mean
            gate = w.run(f"IMDB{i}.cca.conv_du.2", F.relu(w.run(f"IMDB{i}.cca.conv_du.0", contrast)))
            x = w.run(f"IMDB{i}.c5", y * torch.sigmoid(gate)) + x
            outputs.append(x)
        x = w.run("LR_conv", F.leaky_relu(w.run("c.0", torch.cat(outputs, 1)), 0.05)) + first
        return F.pixel_shuffle(w.run("upsampler.0", x), scale)

    return w, forward


def msrresnet(scale: int, basicsr: bool = False, blocks: int = 2, nf: int = 8) -> Original:
    w, trunk, hr = Weights(), "body" if basicsr else "recon_trunk", "conv_hr" if basicsr else "HRconv"
    steps = [2, 2] if scale == 4 else [scale]
    w.conv("conv_first", 3, nf, 3)
    for i in range(blocks):
        w.conv(f"{trunk}.{i}.conv1", nf, nf, 3)
        w.conv(f"{trunk}.{i}.conv2", nf, nf, 3)
    for i, step in enumerate(steps, 1):
        w.conv(f"upconv{i}", nf, nf * step * step, 3)
    w.conv(hr, nf, nf, 3)
    w.conv("conv_last", nf, 3, 3)

    def forward(image: Tensor) -> Tensor:
        x = F.leaky_relu(w.run("conv_first", image), 0.1)
        for i in range(blocks):
            x = x + w.run(f"{trunk}.{i}.conv2", F.relu(w.run(f"{trunk}.{i}.conv1", x)))
        for i, step in enumerate(steps, 1):
            x = F.leaky_relu(F.pixel_shuffle(w.run(f"upconv{i}", x), step), 0.1)
        x = w.run("conv_last", F.leaky_relu(w.run(hr, x), 0.1))
        return x + F.interpolate(image, scale_factor=scale, mode="bilinear")

    return w, forward


def msrresnet_of_mmagic(scale: int) -> Original:
    state, forward = msrresnet(scale, basicsr=True)
    found = {name.replace("body.", "trunk_net."): tensor for name, tensor in state.items()}
    return {re.sub(r"upconv(\d)", r"upsample\1.upsample_conv", name): t for name, t in found.items()}, forward


def srresnet(blocks: int = 2, nf: int = 8, batches: bool = False) -> Original:
    """With instance normalisation, or with batch normalisation by the statistics of its training."""
    w, norms_of = Weights(), "bn" if batches else "in"
    w.conv("conv_input", 3, nf, 9, bias=False)
    norms = [f"residual.{i}.{norms_of}{j}" for i in range(blocks) for j in (1, 2)] + ["bn_mid"]
    for name in [f"residual.{i}.conv{j}" for i in range(blocks) for j in (1, 2)] + ["conv_mid"]:
        w.conv(name, nf, nf, 3, bias=False)
    for name in norms:
        w.add(f"{name}.weight", nf)
        w.add(f"{name}.bias", nf)
        if batches:
            w.statistics(name, nf)
    for i in (0, 3):
        w.conv(f"upscale4x.{i}", nf, 4 * nf, 3, bias=False)
    w.conv("conv_output", nf, 3, 9, bias=False)

    def norm(name: str, x: Tensor) -> Tensor:
        return (
            w.normalise(name, x) if batches else F.instance_norm(x, None, None, w[f"{name}.weight"], w[f"{name}.bias"])
        )

    def forward(image: Tensor) -> Tensor:
        first = x = F.leaky_relu(w.run("conv_input", image), 0.2)
        for i in range(blocks):
            y = F.leaky_relu(norm(f"residual.{i}.{norms_of}1", w.run(f"residual.{i}.conv1", x)), 0.2)
            x = x + norm(f"residual.{i}.{norms_of}2", w.run(f"residual.{i}.conv2", y))
        x = norm("bn_mid", w.run("conv_mid", x)) + first
        for i in (0, 3):
            x = F.leaky_relu(F.pixel_shuffle(w.run(f"upscale4x.{i}", x), 2), 0.2)
        return w.run("conv_output", x)

    return w, forward


def srresnet_of_the_paper(scale: int = 4, long: bool = False, blocks: int = 2, nf: int = 8) -> Original:
    """Batch normalisation and PReLUs of one slope each; ``long``: names of an earlier release."""
    w, conv = Weights(), "conv_block" if long else "conv"
    w.conv(f"{conv}1.0", 3, nf, 9)
    for i in range(blocks):
        for j in (0, 3):
            w.conv(f"trunk.{i}.rcb.{j}", nf, nf, 3, bias=False)
    w.conv(f"{conv}2.0", nf, nf, 3, bias=False)
    for name in [f"trunk.{i}.rcb.{j}" for i in range(blocks) for j in (1, 4)] + [f"{conv}2.1"]:
        w.add(f"{name}.weight", nf)
        w.add(f"{name}.bias", nf)
        w.statistics(name, nf)
    steps = [2] * (scale.bit_length() - 1)
    for i in range(len(steps)):
        w.conv(f"upsampling.{i}.upsample_block.0", nf, 4 * nf, 3)
        w.add(f"upsampling.{i}.upsample_block.2.weight", 1, fan=9)
    for name in (f"{conv}1.1", *(f"trunk.{i}.rcb.2" for i in range(blocks))):
        w.add(f"{name}.weight", 1, fan=9)
    w.conv(f"{conv}3", nf, 3, 9)

    def forward(image: Tensor) -> Tensor:
        first = x = F.prelu(w.run(f"{conv}1.0", image), w[f"{conv}1.1.weight"])
        for i in range(blocks):
            y = w.normalise(f"trunk.{i}.rcb.1", w.run(f"trunk.{i}.rcb.0", x))
            y = w.run(f"trunk.{i}.rcb.3", F.prelu(y, w[f"trunk.{i}.rcb.2.weight"]))
            x = x + w.normalise(f"trunk.{i}.rcb.4", y)
        x = w.normalise(f"{conv}2.1", w.run(f"{conv}2.0", x)) + first
        for i in range(len(steps)):
            block = f"upsampling.{i}.upsample_block"
            x = F.prelu(F.pixel_shuffle(w.run(f"{block}.0", x), 2), w[f"{block}.2.weight"])
        return w.run(f"{conv}3", x)

    return w, forward


def rcan(scale: int, basicsr: bool = False, groups: int = 2, blocks: int = 3, nf: int = 8) -> Original:
    """Takes values in 0..255 in both spellings; the original has its mean colour in the state dict."""
    w = Weights()
    group = "body.{}.residual_group.{}.rcab" if basicsr else "body.{}.body.{}.body"
    squeeze, expand = ("3.attention.1", "3.attention.3") if basicsr else ("3.conv_du.0", "3.conv_du.2")
    close = "body.{}.conv" if basicsr else f"body.{{}}.body.{blocks}"
    first, after, last = (
        ("conv_first", "conv_after_body", "conv_last") if basicsr else ("head.0", f"body.{groups}", "tail.1")
    )
    up = "upsample" if basicsr else "tail.0"
    steps = [2, 2] if scale == 4 else [scale]
    w.conv(first, 3, nf, 3)
    for g in range(groups):
        for b in range(blocks):
            name = group.format(g, b)
            w.conv(f"{name}.0", nf, nf, 3)
            w.conv(f"{name}.2", nf, nf, 3)
            w.conv(f"{name}.{squeeze}", nf, 2, 1)
            w.conv(f"{name}.{expand}", 2, nf, 1)
        w.conv(close.format(g), nf, nf, 3)
    w.conv(after, nf, nf, 3)
    for i, step in enumerate(steps):
        w.conv(f"{up}.{2 * i}", nf, nf * step * step, 3)
    w.conv(last, nf, 3, 3)
    mean = torch.tensor(MEAN if basicsr else (100.0, 110.0, 90.0))
    if not basicsr:
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            w[f"{name}.weight"], w[f"{name}.bias"] = torch.eye(3).view(3, 3, 1, 1), sign * mean

    def forward(image: Tensor) -> Tensor:
        head = x = w.run(first, image - mean.view(1, 3, 1, 1))
        for g in range(groups):
            y = x
            for b in range(blocks):
                name = group.format(g, b)
                z = w.run(f"{name}.2", F.relu(w.run(f"{name}.0", y)))
                gate = w.run(f"{name}.{expand}", F.relu(w.run(f"{name}.{squeeze}", z.mean((2, 3), keepdim=True))))
                y = y + z * torch.sigmoid(gate)
            x = x + w.run(close.format(g), y)
        x = w.run(after, x) + head
        for i, step in enumerate(steps):
            x = F.pixel_shuffle(w.run(f"{up}.{2 * i}", x), step)
        return w.run(last, x) + mean.view(1, 3, 1, 1)

    return w, forward
