"""How far models move the colours of vivid photographs: the share of their blocks that are off by more than 8 levels.

    python bench/colours.py DIR --models fsrcnn-x4 fsrcnn-x3 fsrcnn-x2 --k 1000

Every image of DIR is shrunk to 320x180 and its colours are drawn apart four times; a block is 4x4 LR pixels, of which
the mean may not change, give or take detail.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mga_kernels import MaskGuidedSR

SIZE = (320, 180)
BLOCK = 4
VISIBLE = 8  # levels of 255


def vivid(photograph: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3): four times as far from grey."""
    pixels = np.asarray(photograph.convert("RGB")).astype(np.float32)
    grey = pixels.mean(2, keepdims=True)
    return (grey + 4 * (pixels - grey)).clip(0, 255).astype(np.uint8)


def moved(model: MaskGuidedSR, pixels: np.ndarray) -> np.ndarray:
    """Levels by which the mean of each block moves, in the worst channel; sides are multiples of the block's."""
    height, width, _ = pixels.shape
    found = model.upscale(pixels).astype(np.float32)
    side = BLOCK * model.scale
    means = (
        image.reshape(height // BLOCK, length, width // BLOCK, length, 3).mean((1, 3))
        for image, length in ((found, side), (pixels.astype(np.float32), BLOCK))
    )
    return np.abs(next(means) - next(means)).max(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, help="photographs")
    parser.add_argument("--models", nargs="+", default=["fsrcnn-x4", "fsrcnn-x3", "fsrcnn-x2"])
    parser.add_argument("--k", type=int, default=1000, help="cells that are refined (default: %(default)s)")
    given = parser.parse_args()
    photographs = []
    for path in sorted(given.folder.iterdir()):
        with Image.open(path) as file:
            photographs.append(vivid(file.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)))
    print("| model | photographs | blocks off by more than 8 levels | of the worst photograph | the worst block |")
    print("|---|---|---|---|---|")
    for name in given.models:
        model = MaskGuidedSR.from_pretrained(name, k=given.k, device="cpu")
        levels = [moved(model, pixels) for pixels in photographs]
        shares = [100 * float((one > VISIBLE).mean()) for one in levels]
        worst = max(float(one.max()) for one in levels)
        print(f"| {name} | {len(shares)} | {np.mean(shares):.2f} % | {max(shares):.2f} % | {worst:.1f} levels |")


if __name__ == "__main__":
    main()
