"""Learned against free: ``python bench/masks.py MODEL ... --sets FOLDER [--only Set14 B100]``.

PSNR of luma of mask-guided models on test sets, for shares of cells that the network's mask chooses, or the high-pass
of the coarse picture. The seconds of the masks are not counted; ``MaskGuidedSR.explain`` tells them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np

from mga.evaluation.metrics import psnr_y
from mga.evaluation.testsets import find_sets, load_pair
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import MaskGuidedNetwork

SHARES = (0.1, 0.2, 0.3, 0.5)


def scores(network: MaskGuidedNetwork, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Mean PSNR by way of choosing, for each share; "all" and "none" for every and no cell."""
    ways = {"learned": {"mask": "learned"}, "high-pass": {"mask": "high-pass"}}
    models = {name: [MaskGuidedSR(network, fraction=share, **how) for share in SHARES] for name, how in ways.items()}
    models |= {"none": [MaskGuidedSR(network, k=0)], "all": [MaskGuidedSR(network, fraction=1.0)]}
    border = network.config.scale

    def mean(model: MaskGuidedSR) -> float:
        return fmean(psnr_y(np.asarray(model.upscale(lr)), hr, border) for hr, lr in pairs)

    return {name: [mean(model) for model in of_shares] for name, of_shares in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sets", type=Path, required=True, help="folder of test sets")
    parser.add_argument("--only", nargs="*", default=(), help="names of sets")
    asked = parser.parse_args()
    print("| model | set | cells by | " + " | ".join(f"{share:.0%}" for share in SHARES) + " | none | all |")
    print("|---" * (len(SHARES) + 5) + "|")
    for name in asked.models:
        network = load_checkpoint(name)
        for one in find_sets(asked.sets, network.config.scale, asked.only):
            pairs = [load_pair(hr, lr, network.config.scale) for hr, lr in one.pairs]
            found = scores(network, pairs)
            ends = f"{found['none'][0]:.3f} | {found['all'][0]:.3f}"
            for way in ("learned", "high-pass"):
                row = " | ".join(f"{value:.3f}" for value in found[way])
                print(f"| {name} | {one.name} | {way} | {row} | {ends} |", flush=True)


if __name__ == "__main__":
    main()
