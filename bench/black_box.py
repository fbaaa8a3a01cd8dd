"""What a black box brings that refines rectangles: ``python bench/black_box.py --images DIR [--side N] [-o FILE]``.

A SwinIR in the shape of its authors' light one (60 channels, 4 x 6 blocks of windows of 8, x4), as spandrel has it,
goes through ``mga convert --black-box``, which prints the curve. Its weights are random and of no published network:
the image goes through to the picture, and what the blocks make is added to it. Seconds do not depend on weights; dB do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from mga.cli import main as mga
from mga.conversion import black_box, curve

SCALE, COLOURS = 4, 3


@torch.no_grad()
def light_swinir() -> nn.Module:
    """Seeded; products and attention are larger than spandrel's initial ones, with which hardly anything is mixed."""
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR

    torch.manual_seed(0)
    shape = {"img_size": 64, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "window_size": 8, "mlp_ratio": 2}
    network = SwinIR(**shape, upscale=SCALE, upsampler="pixelshuffledirect")
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2 and ("attn" in name or "mlp" in name):
            if "table" in name:
                parameter.normal_(0, 0.5)
            else:
                parameter.mul_(4)
    first, last = network.conv_first, network.upsample[0]
    first.weight[:COLOURS], first.bias[:COLOURS] = 0, 0
    network.conv_after_body.weight[:COLOURS] *= 0.02
    last.weight *= 0.05
    last.bias.zero_()
    for colour in range(COLOURS):
        made = slice(colour * SCALE**2, (colour + 1) * SCALE**2)
        first.weight[colour, colour, 1, 1] = 1
        last.weight[made, :COLOURS] = 0
        last.weight[made, colour, 1, 1] = 1
    return network


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--count", type=int, default=black_box.IMAGES, help="images that are measured")
    parser.add_argument("--side", type=int, default=curve.LARGEST, help="of what is looked at of each")
    parser.add_argument("--repeats", type=int, default=curve.REPEATS, help="of which the best time counts")
    parser.add_argument("-o", "--output", help="where the model is kept, a .safetensors file")
    asked = parser.parse_args()
    black_box.IMAGES, curve.LARGEST, curve.SMALLEST = asked.count, asked.side, asked.side
    curve.REPEATS = asked.repeats
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "swinir-light-random.pth"
        torch.save(light_swinir().state_dict(), file)
        output = asked.output or str(Path(folder) / "made.safetensors")
        arguments = ["--images", asked.images, "--black-box"]
        return mga(["convert", str(file), "-o", output, *arguments])


if __name__ == "__main__":
    sys.exit(main())
