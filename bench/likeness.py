"""Pictures of our own convolutions against those of PyTorch in float32, in 16 bits a channel.

    python bench/likeness.py MODEL... --data DIR [--sets Set5] [--photographs DIR]

MODEL is the name of a shipped model or a file. ``--data`` holds SET/HR and SET/LR_bicubic/X2, X3, X4; photographs are
shrunk to 960x540 at most, the input. Printed are the lowest and the mean PSNR between both pictures, of all values, and
by how much PSNR-Y to HR, of pictures of 8 bits, differs at most. Both run the same variant, -M with the default K: near
a tie they may refine other cells, whose pixels then differ by what refining does. Pictures of 16 bits are made in tiles
of 4 in any case; the column on PSNR-Y is about pictures of bytes as everybody gets them.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from quality import set_pairs

from mga.evaluation.metrics import psnr_y
from mga.evaluation.testsets import load_pair
from mga_kernels import MaskGuidedSR

LR_SIZE = 960, 540
DEEP = 65535


def examples(args: argparse.Namespace, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """LR and HR images, uint8 (h, w, 3); photographs have no HR."""
    for name in args.sets:
        for hr_path, lr_path in set_pairs(args.data, name, scale):
            hr, lr = load_pair(hr_path, lr_path, scale)
            yield lr, hr
    for path in sorted(args.photographs.glob("*.jpg")) if args.photographs else []:
        photograph = Image.open(path).convert("RGB")
        photograph.thumbnail(LR_SIZE, Image.Resampling.LANCZOS)
        yield np.asarray(photograph), None


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2) / DEEP**2
    return math.inf if error == 0 else -10 * math.log10(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["Set5"])
    parser.add_argument("--photographs", type=Path)
    args = parser.parse_args()
    print("| model | images | PSNR, lowest | mean | PSNR-Y to HR differs by |\n|---|--:|--:|--:|--:|")
    for name in args.models:
        ours = MaskGuidedSR.from_checkpoint(name, device="cpu", runtime="own", dtype="float32")
        theirs = MaskGuidedSR.from_checkpoint(name, device="cpu", runtime="pytorch", dtype="float32")
        found, apart = [], [0.0]
        for lr, hr in examples(args, ours.scale):
            deep = lr.astype(np.uint16) * 257
            found.append(decibels(ours.upscale(deep), theirs.upscale(deep)))
            if hr is not None:
                mine, other = (psnr_y(one.upscale(lr), hr, ours.scale) for one in (ours, theirs))
                apart.append(abs(mine - other))
        lowest, mean = min(found), statistics.fmean(found)
        print(f"| {name} | {len(found)} | {lowest:.1f} | {mean:.1f} | {max(apart):.4f} dB |", flush=True)


if __name__ == "__main__":
    main()
