"""Pictures of our own convolutions against those of PyTorch in float32, in 16 bits a channel.

    python bench/likeness.py MODEL... --data DIR [--sets Set5] [--photographs DIR [--size 960x540]] [--exact]

MODEL is the name of a shipped model, a file, or the name of a network (rcan), which is run at x4 with random weights
where none ship, and with a random Refine-Net in any case. ``--data`` holds SET/HR and SET/LR_bicubic/X2, X3, X4;
photographs are shrunk to ``--size`` at most, the input. Printed are the lowest and the mean PSNR between both pictures,
of all values; and of the sets in 8 bits, as everybody gets them, the lowest PSNR between both pictures and by how much
PSNR-Y to HR differs at most. Both run the same variant, -M with the default K: near a tie they may refine other cells,
whose pixels then differ by what refining does. Pictures of 16 bits are made in tiles of 4 in any case, those of 8 bits
in the tiles that the network has. ``--exact``, of whole networks: the lowest PSNR of both pictures in 8 bits, ours and
PyTorch's, to that of the network in float64.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from contenders import make_networks
from images import processor, size_of, test_image
from PIL import Image
from quality import set_pairs

from mga.evaluation.metrics import psnr_y
from mga.evaluation.testsets import load_pair
from mga_kernels import MaskGuidedSR, _native
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import SRNetwork, network_names

SCALE = 4
DEEP, BYTES = 65535, 255


def examples(args: argparse.Namespace, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """LR and HR images, uint8 (h, w, 3); photographs have no HR."""
    for name in args.sets:
        for hr_path, lr_path in set_pairs(args.data, name, scale):
            hr, lr = load_pair(hr_path, lr_path, scale)
            yield lr, hr
    for path in sorted(args.photographs.glob("*.jpg")) if args.photographs else []:
        photograph = Image.open(path).convert("RGB")
        photograph.thumbnail(args.size, Image.Resampling.LANCZOS)
        yield np.asarray(photograph), None


def decibels(one: np.ndarray, other: np.ndarray, most: int) -> float:
    """PSNR of two pictures with values up to ``most``."""
    error = np.mean((one.astype(np.float64) - other) ** 2) / most**2
    return math.inf if error == 0 else -10 * math.log10(error)


@torch.no_grad()
def exact_picture(network: SRNetwork, image: np.ndarray) -> np.ndarray:
    """Of a whole network in float64: uint8 (h, w, 3) -> float64 (sh, sw, 3), rounded to whole levels."""
    given = torch.from_numpy(image).permute(2, 0, 1)[None].double() / BYTES
    return (network(given)[0].clamp(0, 1) * BYTES).round().permute(1, 2, 0).numpy()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["Set5"])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--size", type=size_of, default=(960, 540), help="of photographs (default 960x540)")
    parser.add_argument("--exact", action="store_true", help="compare whole networks with float64, too")
    args = parser.parse_args(arguments)
    print(f"{processor()}, {_native.map_kernels()[0]} kernels, torch {torch.__version__}.\n")
    titles = ["images", "PSNR, lowest", "mean", "in 8 bits, lowest", "PSNR-Y to HR differs by"]
    titles += ["in 8 bits, ours to float64", "PyTorch to float64"] if args.exact else []
    print(f"| model | {' | '.join(titles)} |\n|---|{'--:|' * len(titles)}")
    for name in args.models:
        made = name in network_names()
        network = make_networks(name, SCALE, test_image(*args.size))[0] if made else load_checkpoint(name)
        ours, theirs = (
            MaskGuidedSR(network, device="cpu", runtime=runtime, dtype="float32") for runtime in ("own", "pytorch")
        )
        if args.exact and network.masked:
            raise SystemExit(f"likeness: {name} has a mask, and float64 may choose other cells; leave --exact out")
        double = copy.deepcopy(network).double() if args.exact else None
        found, rounded, apart = [], [math.inf], [0.0]
        to_exact: list[tuple[float, float]] = []
        for lr, hr in examples(args, ours.scale):
            deep = lr.astype(np.uint16) * 257
            found.append(decibels(ours.upscale(deep), theirs.upscale(deep), DEEP))
            if hr is not None:
                mine, other = (np.asarray(one.upscale(lr)) for one in (ours, theirs))
                rounded.append(decibels(mine, other, BYTES))
                apart.append(abs(psnr_y(mine, hr, ours.scale) - psnr_y(other, hr, ours.scale)))
                if double is not None:
                    wanted = exact_picture(double, lr)
                    to_exact.append((decibels(mine, wanted, BYTES), decibels(other, wanted, BYTES)))
        cells = [f"{value:.1f}" for value in (min(found), statistics.fmean(found), min(rounded))]
        cells += [f"{max(apart):.4f} dB", *(f"{min(values):.1f}" for values in zip(*to_exact, strict=True))]
        print(f"| {Path(name).stem} | {len(found)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
