"""SRGAN's generators and KAIR's IMDN as they were written, with random weights: see ``originals``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from local_originals import Doubles
from originals import Original
from torch import Tensor

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLACES = {  # of the parts of a generator: by numbered blocks, or with each convolution in a Sequential of its own
    False: ("block1.0", "block1.1", "block{}", "conv{}", "bn{}", "prelu", "block{}.0", "block{}.1", "block{}"),
    True: (
        "conv_block1.conv_block.0",
        "conv_block1.conv_block.1",
        "residual_blocks.{}",
        "conv_block{}.conv_block.0",
        "conv_block{}.conv_block.1",
        "conv_block1.conv_block.2",
        "conv_block2.conv_block.0",
        "conv_block2.conv_block.1",
        "subpixel_convolutional_blocks",
    ),
}


def srgan(scale: int = 4, nested: bool = False, blocks: int = 2, nf: int = 8) -> Original:
    """Batch normalisation, a PReLU of one slope after each, a hyperbolic tangent; ``nested``: of ImageNet's colours."""
    w, first = Doubles(), 0 if nested else 2
    head, slope, block, conv, norm, inner, closing, closing_norm, up = PLACES[nested]
    closing, closing_norm, up = (
        name.format(n) for name, n in ((closing, blocks + 2), (closing_norm, blocks + 2), (up, blocks + 3))
    )
    names = [block.format(first + n) for n in range(blocks)]
    steps = range(scale.bit_length() - 1)
    last = "conv_block3.conv_block.0" if nested else f"{up}.{len(steps)}"
    w.conv(head, 3, nf, 9)
    for name in (f"{part}.{conv.format(j)}" for part in names for j in (1, 2)):
        w.conv(name, nf, nf, 3)
    w.conv(closing, nf, nf, 3)
    for name in [f"{part}.{norm.format(j)}" for part in names for j in (1, 2)] + [closing_norm]:
        w.add(f"{name}.weight", nf)
        w.add(f"{name}.bias", nf)
        w.statistics(name, nf)
    for name in (slope, *(f"{part}.{inner}" for part in names), *(f"{up}.{step}.prelu" for step in steps)):
        w.add(f"{name}.weight", 1, fan=9)
    for step in steps:
        w.conv(f"{up}.{step}.conv", nf, 4 * nf, 3)
    w.conv(last, nf, 3, 9)

    def prelu(name: str, x: Tensor) -> Tensor:
        return F.prelu(x, w[f"{name}.weight"].double())

    def forward(image: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in IMAGENET)
        x = (image - mean) / deviation if nested else image
        start = x = prelu(slope, w.run(head, x))
        for part in names:
            y = w.normalise(f"{part}.{norm.format(1)}", w.run(f"{part}.{conv.format(1)}", x))
            y = w.run(f"{part}.{conv.format(2)}", prelu(f"{part}.{inner}", y))
            x = x + w.normalise(f"{part}.{norm.format(2)}", y)
        x = w.normalise(closing_norm, w.run(closing, x)) + start
        for step in steps:
            x = prelu(f"{up}.{step}.prelu", F.pixel_shuffle(w.run(f"{up}.{step}.conv", x), 2))
        return (torch.tanh(w.run(last, x)) + 1) / 2

    return w, forward


def imdn_of_kair(scale: int, blocks: int = 2, nf: int = 16) -> Original:
    """Without attention and fusion."""
    w, kept = Doubles(), nf // 4
    w.conv("model.0", 3, nf, 3)
    for n in range(blocks):
        name = f"model.1.sub.{n}"
        for j, inputs in ((1, nf), (2, nf - kept), (3, nf - kept)):
            w.conv(f"{name}.conv{j}.0", inputs, nf, 3)
        w.conv(f"{name}.conv4", nf - kept, kept, 3)
        w.conv(f"{name}.conv1x1", 4 * kept, nf, 1)
    w.conv(f"model.1.sub.{blocks}", nf, nf, 3)
    w.conv("model.2", nf, 3 * scale * scale, 3)

    def forward(image: Tensor) -> Tensor:
        first = x = w.run("model.0", image)
        for n in range(blocks):
            name, parts, rest = f"model.1.sub.{n}", [], x
            for j in (1, 2, 3):
                y = F.leaky_relu(w.run(f"{name}.conv{j}.0", rest), 0.05)
                parts.append(y[:, :kept])
                rest = y[:, kept:]
            x = x + w.run(f"{name}.conv1x1", torch.cat([*parts, w.run(f"{name}.conv4", rest)], 1))
        return F.pixel_shuffle(w.run("model.2", first + w.run(f"model.1.sub.{blocks}", x)), scale)

    return w, forward
