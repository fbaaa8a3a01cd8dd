"""Learned against free: ``python bench/masks.py MODEL ... --sets FOLDER [--only Set14 B100]``.

PSNR of luma of mask-guided models on test sets, for shares of cells that the network's mask chooses, or the high-pass
of the coarse picture; and the milliseconds of an image that choosing takes, and of all its steps, at 20 % of the cells,
the two ways in turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, median

import numpy as np

from mga.evaluation.metrics import psnr_y
from mga.evaluation.testsets import find_sets, load_pair
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.config import MASKS

SHARES = (0.1, 0.2, 0.3, 0.5)
TIMED = 0.2
STEPS = ("base", "mask", "refine")

Pairs = list[tuple[np.ndarray, np.ndarray]]


def scores(network: MaskGuidedNetwork, pairs: Pairs) -> dict[str, list[float]]:
    """Mean PSNR by way of choosing, for each share; "all" and "none" for every and no cell."""
    models = {way: [MaskGuidedSR(network, fraction=share, mask=way) for share in SHARES] for way in MASKS}
    models |= {"none": [MaskGuidedSR(network, k=0)], "all": [MaskGuidedSR(network, fraction=1.0)]}
    border = network.config.scale

    def mean(model: MaskGuidedSR) -> float:
        return fmean(psnr_y(np.asarray(model.upscale(lr)), hr, border) for hr, lr in pairs)

    return {name: [mean(model) for model in of_shares] for name, of_shares in models.items()}


def milliseconds(network: MaskGuidedNetwork, pairs: Pairs) -> dict[str, tuple[float, float]]:
    """Median of an image by way of choosing: of the choice, and of all steps. Each image is run once before."""
    models = {way: MaskGuidedSR(network, fraction=TIMED, mask=way) for way in MASKS}
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in MASKS}
    for _, lr in pairs:
        for turn in range(2):
            for way, model in models.items():
                seconds = model.explain(lr).timings
                if turn:
                    spent[way].append((seconds["mask"], sum(seconds[step] for step in STEPS)))
    return {way: tuple(1000 * median(column) for column in zip(*rows, strict=True)) for way, rows in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sets", type=Path, required=True, help="folder of test sets")
    parser.add_argument("--only", nargs="*", default=(), help="names of sets")
    asked = parser.parse_args()
    shares = " | ".join(f"{share:.0%}" for share in SHARES)
    print(f"| model | set | cells by | {shares} | none | all | choosing, ms | image, ms |")
    print("|---" * (len(SHARES) + 7) + "|")
    for name in asked.models:
        network = load_checkpoint(name)
        if not isinstance(network, MaskGuidedNetwork):
            raise SystemExit(
                f"masks: {name} has no learned mask to compare; name a mask-guided model such as fsrcnn-x4"
            )
        for one in find_sets(asked.sets, network.config.scale, asked.only):
            pairs = [load_pair(hr, lr, network.config.scale) for hr, lr in one.pairs]
            found, spent = scores(network, pairs), milliseconds(network, pairs)
            ends = f"{found['none'][0]:.3f} | {found['all'][0]:.3f}"
            for way in MASKS:
                row = " | ".join(f"{value:.3f}" for value in found[way])
                took = " | ".join(f"{value:.2f}" for value in spent[way])
                print(f"| {name} | {one.name} | {way} | {row} | {ends} | {took} |", flush=True)


if __name__ == "__main__":
    main()
